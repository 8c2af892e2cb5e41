"""From a policy's hypothesis class to its family."""

from __future__ import annotations

from typing import TYPE_CHECKING

from guardrail.policy.memory_schema import FiniteMdp, HiddenMarkov
from guardrail.policy.schema import (
    BernoulliLogistic,
    BetaBernoulli,
    FiniteTable,
    GaussianLinear,
    HypothesesSpec,
    LinearGaussianLattice,
)

if TYPE_CHECKING:
    from guardrail.domain import HarmEvent
    from guardrail.hypotheses.base import Family


def build(spec: HypothesesSpec, harm: HarmEvent, feature_names: tuple[str, ...]) -> Family:
    """The family that a policy describes.

    Args:
        spec: the policy's hypothesis class.
        harm: the harm event over the outcome.
        feature_names: the flattened numeric features, in the order in which rows hold them.

    :raises ValueError: if the class is inconsistent in itself, or does not fit the harm event or the features.
    """
    # Imported here so that a policy of one family does not load the others.
    match spec:
        case FiniteTable():
            from guardrail.hypotheses.finite_table import FiniteTableFamily

            return FiniteTableFamily.from_spec(spec, harm, feature_names)
        case LinearGaussianLattice():
            from guardrail.hypotheses.linear_gaussian_lattice import LinearGaussianLatticeFamily

            return LinearGaussianLatticeFamily.from_spec(spec, harm, feature_names)
        case BernoulliLogistic():
            from guardrail.hypotheses.bernoulli_logistic import BernoulliLogisticFamily

            return BernoulliLogisticFamily.from_spec(spec, harm, feature_names)
        case BetaBernoulli():
            from guardrail.hypotheses.beta_bernoulli import BetaBernoulliFamily

            return BetaBernoulliFamily.from_spec(spec, harm, feature_names)
        case GaussianLinear():
            from guardrail.hypotheses.gaussian_linear import GaussianLinearFamily

            return GaussianLinearFamily.from_spec(spec, harm, feature_names)
        case HiddenMarkov():
            from guardrail.hypotheses.hidden_markov import HiddenMarkovFamily

            return HiddenMarkovFamily.from_spec(spec, harm, feature_names)
        case FiniteMdp():
            from guardrail.hypotheses.finite_mdp import FiniteMdpFamily

            return FiniteMdpFamily.from_spec(spec, harm, feature_names)
        case _:
            raise ValueError(f"{spec.family} hypotheses are a program: they are built in a process of their own")
