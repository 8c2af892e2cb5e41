"""The classes that the bounds are tried on.

Everything here is fixed: tables of rates come from generators with seeds of their own, so that a run's
seed changes what happens in a world and never the world.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from typing import Any, cast

import jax
import numpy as np
from scipy.stats import beta, norm

from guardrail.domain import BooleanHarm, IntervalHarm
from guardrail.hypotheses.beta_bernoulli import BetaBernoulliFamily
from guardrail.hypotheses.conjugate import ConjugateFamily
from guardrail.hypotheses.finite_table import FiniteTableFamily
from guardrail.hypotheses.gaussian_linear import GaussianLinearFamily
from guardrail.hypotheses.linear_gaussian_lattice import LinearGaussianLatticeFamily
from guardrail.policy.schema import FiniteTable, TableHypothesis
from simulations.validation.worlds import ConjugateWorld, FiniteWorld, Floats, World

SMALLEST_MASS = 1e-12
"""Floor of a prior mass: the theorems need a positive one."""
SMALLEST_RATE = 1e-6
"""True rates drawn from a Beta prior are at least this far from 0 and 1, where logs are infinite."""


def _log_prior(masses: Floats) -> Floats:
    floored = np.maximum(masses / masses.sum(), SMALLEST_MASS)
    return np.asarray(np.log(floored) - np.log(floored.sum()))


def _uniform(size: int) -> Floats:
    return np.full(size, -math.log(size))


def _table(
    title: str, rates: Floats, priors: Mapping[str, Floats], outside: Mapping[str, tuple[float, ...]]
) -> FiniteWorld:
    """A table of rates, float64[H, A], one category for each action."""
    hypotheses = tuple(
        TableHypothesis(name=f"h{number}", rates={a: float(rate) for a, rate in enumerate(row)})
        for number, row in enumerate(rates)
    )
    spec = FiniteTable(family="finite-table", category="action", table=hypotheses)
    family = FiniteTableFamily(spec, BooleanHarm(harmful=True))
    rows = np.stack([family.encode((), a) for a in range(rates.shape[1])])
    return FiniteWorld(title, family, rows, rates, rates, priors, outside)


def _lattice(
    title: str,
    rows: Floats,
    levels: int,
    noise_sd: float,
    harm_above: float,
    skewed: tuple[float, ...],
    outside: Mapping[str, tuple[float, ...]],
) -> FiniteWorld:
    """A lattice of weights; outside: weights of truths that are no member, by name."""
    event = IntervalHarm(harm_above, math.inf, inside=True)
    names = tuple(f"f{j}" for j in range(rows.shape[1]))
    family, skewed_family = (
        LinearGaussianLatticeFamily(levels, noise_sd, prior, event, names) for prior in (None, skewed)
    )
    digits = np.arange(family.size)[:, None] // levels ** np.arange(rows.shape[1])[::-1] % levels
    with jax.enable_x64(True):
        harm = [np.asarray(family.harm_from_score(family.harm_score(family.arrays, row))) for row in rows]
    return FiniteWorld(
        title,
        family,
        rows,
        digits @ rows.T,
        np.stack(harm, axis=1),
        {"uniform": family.log_prior(), "product": skewed_family.log_prior()},
        {name: tuple(float(m) for m in rows @ np.asarray(weights)) for name, weights in outside.items()},
        noise_sd,
        harm_above,
    )


def _features(seed: int, arms: int, dim: int, ones: tuple[int, ...]) -> Floats:
    """Rows of zeros and ones, the k-th with ones[k % len(ones)] of them."""
    random = np.random.default_rng(seed)
    rows = np.zeros((arms, dim))
    for arm, row in enumerate(rows):
        row[random.permutation(dim)[: ones[arm % len(ones)]]] = 1.0
    return rows


def _enumerated() -> FiniteWorld:
    rates = np.array([[0.10, 0.75, 0.40], [0.30, 0.30, 0.55], [0.55, 0.20, 0.25], [0.90, 0.60, 0.40]])
    skewed = np.array([0.001, 0.9, 0.009, 0.09])
    priors = {"uniform": _uniform(4), "skewed": _log_prior(skewed)}
    return _table("Bernoulli, 4 hypotheses", rates, priors, {})


def _twins() -> FiniteWorld:
    rates = np.array([[0.52, 0.30, 0.70], [0.50, 0.34, 0.70]])
    priors = {"uniform": _uniform(2), "skewed": _log_prior(np.array([0.999, 0.001]))}
    return _table("Bernoulli, 2 near twins", rates, priors, {})


def _fifty() -> FiniteWorld:
    random = np.random.default_rng(50)
    rates = random.beta(1.2, 2.5, (50, 4)).clip(0.02, 0.65)
    priors = {
        "uniform": _uniform(50),
        "Dirichlet(0.05)": _log_prior(random.dirichlet(np.full(50, 0.05))),
    }
    near = tuple(float(rate) for rate in random.beta(1.2, 2.5, 4).clip(0.02, 0.65))
    return _table("Bernoulli, 50 hypotheses", rates, priors, {"far": (0.85, 0.80, 0.90, 0.75), "near": near})


def _bandit() -> FiniteWorld:
    rows = _features(10, 5, 10, (5, 4, 6, 7, 3))
    skewed, outside = (0.9, 0.1), {"far": (1.6,) * 10, "near": (0.5,) * 10}
    return _lattice("Lattice {0, 1}^10 (bandit)", rows, 2, 1.0, 4.0, skewed, outside)


def _large() -> FiniteWorld:
    rows = _features(5, 4, 5, (2, 3, 1, 4))
    skewed = tuple(0.5 ** np.arange(1.0, 11.0) / np.sum(0.5 ** np.arange(1.0, 11.0)))
    return _lattice("Lattice {0..9}^5", rows, 10, 3.0, 15.0, skewed, {})


def _budgeted() -> FiniteWorld:
    rows = np.array([[1, 0, 0, 0], [0, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 1], [1, 1, 1, 0]], float)
    return _lattice("Lattice {0, 1}^4", rows, 2, 1.0, 4.0, (0.95, 0.05), {})


_BETA_PRIORS = {"Beta(1, 1)": (1.0, 1.0), "Beta(1, 20)": (1.0, 20.0), "Beta(0.05, 0.05)": (0.05, 0.05)}


def _beta_bernoulli() -> ConjugateWorld:
    harm = BooleanHarm(harmful=True)
    families = {name: BetaBernoulliFamily(4, a, b, harm) for name, (a, b) in _BETA_PRIORS.items()}

    def draw(prior: str, uniform: Floats) -> Floats:
        return np.asarray(beta.ppf(uniform, *_BETA_PRIORS[prior])).clip(SMALLEST_RATE, 1.0 - SMALLEST_RATE)

    fixed = {"extreme": (0.9, 0.5, 0.99, 0.2)}
    rows = np.arange(4.0)[:, None]
    return ConjugateWorld("Beta-Bernoulli", cast("dict[str, ConjugateFamily]", families), rows, harm, draw, 4, fixed)


def _gaussian(box: tuple[float, float] | None) -> ConjugateWorld:
    event, noise_sd = IntervalHarm(2.5, math.inf, inside=True), 1.0
    priors = {"N(0, 1)": 1.0, "N(0, 0.1^2)": 0.1}
    families = {
        name: GaussianLinearFamily(("u", "v", "w"), noise_sd, 0.0, sd, box, event) for name, sd in priors.items()
    }
    rows = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [1.0, 1.0, 0.5], [0.0, 0.5, 2.0]])

    def draw(prior: str, uniform: Floats) -> Floats:
        if box is not None:
            return np.asarray((box[0] + (box[1] - box[0]) * uniform) @ rows.T)
        return np.asarray(norm.ppf(uniform, scale=priors[prior]) @ rows.T)

    title = "Gaussian linear" if box is None else "Gaussian linear in a box"
    weights = {"extreme": (1.9, -1.9, 1.5), "beyond": (4.0, -3.0, 2.5)}
    fixed = {name: tuple(float(m) for m in rows @ np.asarray(w)) for name, w in weights.items()}
    by_prior = cast("dict[str, ConjugateFamily]", families)
    return ConjugateWorld(title, by_prior, rows, event, draw, 3, fixed, noise_sd, event.lower)


_BUILDERS: Mapping[str, Callable[[], Any]] = {
    "enumerated": _enumerated,
    "twins": _twins,
    "fifty": _fifty,
    "lattice": _bandit,
    "large": _large,
    "budgeted": _budgeted,
    "beta-bernoulli": _beta_bernoulli,
    "gaussian": functools.partial(_gaussian, None),
    "gaussian-box": functools.partial(_gaussian, (-2.0, 2.0)),
}
WORLDS = tuple(_BUILDERS)
"""Names of the classes."""


@functools.cache
def world(name: str) -> World:
    """A class by name, built once.

    :raises KeyError: if there is none of that name.
    """
    built: World = _BUILDERS[name]()
    return built
