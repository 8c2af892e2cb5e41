"""The bounds under test: what each promises, and where its numbers come from.

Every bound is one of `guardrail.bounds`, or, where it is shown to fail, a set of `unsound` in place of one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeAlias

import jax

from guardrail import bounds
from simulations.validation import unsound

Guarantee: TypeAlias = Literal["theorem", "asymptotic", "none"]
BoundName: TypeAlias = Literal[
    "plausible",
    "plausible-least",
    "plausible-running",
    "ratio",
    "ratio-running",
    "weak",
    "iid",
    "predictive",
    "mle",
    "map",
    "credible",
    "plausible-unscaled",
]


class View(NamedTuple):
    """What a bound is computed from.

    Attributes:
        log_posterior: float64[H].
        log_prior: float64[H].
        log_likelihood: float64[H], of everything reported so far.
        harm: float64[H, A].
        alpha: float64[], level of a plausible set.
        delta: level of the other sets.
        members: bool[H], running intersection up to the last check.
    """

    log_posterior: jax.Array
    log_prior: jax.Array
    log_likelihood: jax.Array
    harm: jax.Array
    alpha: jax.Array
    delta: float
    members: jax.Array


Kernel: TypeAlias = Callable[[View], tuple[jax.Array, jax.Array]]
"""Bounds, float64[A], and the running intersection, bool[H] (unchanged where the bound keeps none)."""


@dataclass(frozen=True, slots=True)
class Bound:
    """A bound of the table.

    Attributes:
        kernel: key of KERNELS.
        guarantee: what it promises where its assumptions hold.
        alpha: what delta is multiplied with to give alpha, if the kernel uses one: the prior mass of the
            truth, the smallest prior mass, or nothing.
        words: what it is, for a reader of the report.
    """

    kernel: str
    guarantee: Guarantee
    alpha: Literal["truth", "least", "one"]
    words: str


BOUNDS: dict[BoundName, Bound] = {
    "plausible": Bound(
        "plausible",
        "theorem",
        "truth",
        "largest harm over the plausible set, alpha = delta * P(truth) (the paper, Proposition 4.5)",
    ),
    "plausible-least": Bound(
        "plausible",
        "theorem",
        "least",
        "the same with alpha = delta * smallest prior mass: needs no knowledge of the truth",
    ),
    "plausible-running": Bound(
        "plausible-running",
        "theorem",
        "truth",
        "largest harm over the intersection of all plausible sets so far, alpha = delta * P(truth)",
    ),
    "ratio": Bound(
        "ratio",
        "theorem",
        "one",
        "largest harm over the prior-posterior ratio set (Waudby-Smith and Ramdas 2020)",
    ),
    "ratio-running": Bound(
        "ratio-running", "theorem", "one", "largest harm over the intersection of all ratio sets so far"
    ),
    "weak": Bound(
        "weak",
        "theorem",
        "one",
        "sup of posterior * harm / (delta * prior) (the paper, Proposition 4.3); may exceed 1",
    ),
    "iid": Bound(
        "iid",
        "asymptotic",
        "one",
        "harm of the hypothesis with the largest posterior * harm (the paper, Proposition 3.3): "
        "holds from some unknown n on, for i.i.d. data",
    ),
    "predictive": Bound("predictive", "none", "one", "mean harm under the posterior"),
    "mle": Bound("mle", "none", "one", "harm of the maximum likelihood estimate, taken for the truth"),
    "map": Bound("map", "none", "one", "harm of the most probable hypothesis (MAP), taken for the truth"),
    "credible": Bound(
        "credible",
        "none",
        "one",
        "largest harm over a credible set of posterior mass 1 - delta (Gaussian class: upper 1 - delta quantile)",
    ),
    "plausible-unscaled": Bound(
        "plausible", "none", "one", "the plausible set with alpha = delta: the prior mass of the truth is left out"
    ),
}


def _plausible(view: View) -> tuple[jax.Array, jax.Array]:
    return bounds.plausible(view.log_posterior, view.harm, view.alpha), view.members


def _plausible_running(view: View) -> tuple[jax.Array, jax.Array]:
    members = bounds.intersect(view.members, bounds.plausible_set(view.log_posterior, view.alpha))
    return bounds.set_bound(members, view.harm), members


def _ratio(view: View) -> tuple[jax.Array, jax.Array]:
    return bounds.ratio(view.log_posterior, view.log_prior, view.harm, view.delta), view.members


def _ratio_running(view: View) -> tuple[jax.Array, jax.Array]:
    members = bounds.intersect(view.members, bounds.ratio_set(view.log_posterior, view.log_prior, view.delta))
    return bounds.set_bound(members, view.harm), members


def _weak(view: View) -> tuple[jax.Array, jax.Array]:
    return bounds.weak(view.log_posterior, view.log_prior, view.harm, view.delta), view.members


def _iid(view: View) -> tuple[jax.Array, jax.Array]:
    return bounds.iid(view.log_posterior, view.harm), view.members


def _predictive(view: View) -> tuple[jax.Array, jax.Array]:
    return bounds.predictive(view.log_posterior, view.harm), view.members


def _mle(view: View) -> tuple[jax.Array, jax.Array]:
    return bounds.set_bound(unsound.best(view.log_likelihood), view.harm), view.members


def _map(view: View) -> tuple[jax.Array, jax.Array]:
    return bounds.set_bound(unsound.best(view.log_posterior), view.harm), view.members


def _credible(view: View) -> tuple[jax.Array, jax.Array]:
    return bounds.set_bound(unsound.credible(view.log_posterior, view.delta), view.harm), view.members


KERNELS: dict[str, Kernel] = {
    "plausible": _plausible,
    "plausible-running": _plausible_running,
    "ratio": _ratio,
    "ratio-running": _ratio_running,
    "weak": _weak,
    "iid": _iid,
    "predictive": _predictive,
    "mle": _mle,
    "map": _map,
    "credible": _credible,
}
"""How each bound is computed for a finite class; several bounds may share a kernel, and then a compiled program."""
