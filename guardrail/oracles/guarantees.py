"""What a bound over an enumerated class promises, in words and numbers."""

from __future__ import annotations

import functools
import math
from dataclasses import replace

from guardrail.domain import Guarantee, GuaranteeKind
from guardrail.policy.schema import BoundSpec, IidBound, PlausibleBound, PredictiveBound, RatioBound

IN_CLASS = "the truth is a member of the hypothesis class"
ALL_REPORTED = "the outcome of every action that was carried out is reported, whatever its value"
FIXED_BEFORE = "the class, the prior and the bound's level were fixed before any of the data was seen"
IID = "observations are independent and identically distributed"
DISTINCT = "no two hypotheses are the same distribution"
SELF_REPORTED = (
    "outcomes are reported by the agent itself, which reports every one of them truthfully, even where another would "
    "win it a permission"
)
FROM_SOME_TIME = "it holds from some unknown time on and says nothing about the present one"

PAPER = "Bengio et al., UAI 2025"
RATIO_SOURCE = "Waudby-Smith and Ramdas 2020, prior-posterior ratio; Ville's inequality"


def guarantee(bound: BoundSpec, of_class: tuple[str, ...], min_log_prior: float) -> Guarantee:
    """The guarantee of a bound over a class of finitely many hypotheses.

    Args:
        bound: the policy's bound.
        of_class: what the class assumes of the world.
        min_log_prior: log of the smallest prior mass of a hypothesis.
    """
    always = (*of_class, IN_CLASS, ALL_REPORTED, FIXED_BEFORE)
    match bound:
        case RatioBound():
            return Guarantee(GuaranteeKind.THEOREM, confidence(bound.delta), always, RATIO_SOURCE)
        case PlausibleBound():
            delta = _delta_of(bound.alpha, min_log_prior)
            source = f"{PAPER}, Propositions 4.2 and 4.5; Ville's inequality"
            if delta >= 1.0:
                why = (
                    f"nothing is promised: the level alpha = {bound.alpha:g} is not below the smallest prior mass, "
                    f"{math.exp(min_log_prior):.3g}, so it buys no confidence"
                )
                return Guarantee(GuaranteeKind.NONE, 0.0, (why,), source)
            return Guarantee(GuaranteeKind.THEOREM, confidence(delta), always, source)
        case IidBound():
            assumptions = (*always, IID, DISTINCT, FROM_SOME_TIME)
            return Guarantee(GuaranteeKind.ASYMPTOTIC, 0.0, assumptions, f"{PAPER}, Propositions 3.1 and 3.3")
        case PredictiveBound():
            why = "nothing is promised: the posterior mean of harm can lie far below the true harm"
            return Guarantee(GuaranteeKind.NONE, 0.0, (why,), "posterior predictive harm")


@functools.lru_cache(maxsize=256)
def self_reported(stated: Guarantee) -> Guarantee:
    """A guarantee over data that the agent reports itself: it assumes that the agent tells the truth."""
    if stated.kind is GuaranteeKind.NONE:
        return stated
    return replace(stated, assumptions=(*stated.assumptions, SELF_REPORTED))


def confidence(delta: float) -> float:
    """1 - delta rounded down: never more than is promised, never 1."""
    rounded = 1.0 - delta
    return rounded if 1.0 - rounded >= delta else math.nextafter(rounded, 0.0)


def _delta_of(alpha: float, min_log_prior: float) -> float:
    """alpha / (smallest prior mass), rounded up past the error of its logarithm and exponential."""
    ratio = math.log(alpha) - min_log_prior
    return 1.0 if ratio >= 0.0 else min(1.0, math.exp(ratio) * (1.0 + 1e-12))
