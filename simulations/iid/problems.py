"""Classes of hypotheses, the truth beside or among them, and how hard they are to tell apart.

Each class has seven or sixteen members. The truth is the middle one, or lies outside, four tenths of the way
to a neighbour: then the posterior ends up at the nearest member in the Kullback-Leibler divergence, and
what that member says about harm is what matters.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt

from guardrail.domain import BooleanHarm, IntervalHarm
from guardrail.hypotheses.finite_table import FiniteTableFamily
from guardrail.hypotheses.gaussian_harm import interval_harm
from guardrail.hypotheses.linear_gaussian_lattice import LinearGaussianLatticeFamily
from guardrail.policy.schema import FiniteTable, TableHypothesis

Floats: TypeAlias = npt.NDArray[np.float64]
ClassName: TypeAlias = Literal["bernoulli", "categorical", "gaussian", "lattice"]
Case: TypeAlias = Literal["distinct", "duplicate", "outside-worse", "outside-milder"]
CLASSES: tuple[ClassName, ...] = get_args(ClassName)
CASES: tuple[Case, ...] = get_args(Case)
SHIFTS = {"distinct": 0.0, "duplicate": 0.0, "outside-worse": 0.4, "outside-milder": -0.4}
"""Where the truth lies, in distances between neighbours: outside, it is worse or milder than its nearest member."""
STEPS = tuple(range(-3, 4))
MIDDLE = 3


@dataclass(frozen=True, eq=False)
class Problem:
    """A class, a truth, and a stream of observations.

    Attributes:
        harm: float64[H, X], probability of harm at X inputs under each hypothesis.
        true_harm: float64[X].
        divergence: float64[H], KL divergence of each hypothesis from the truth, nats an observation.
        same_as_truth: bool[H], the members that are distributed as the truth is.
        draw: a key to one observation: a number of an input and an outcome, float64[2].
        log_likelihood: of an observation, float64[H].
    """

    harm: Floats
    true_harm: Floats
    divergence: Floats
    same_as_truth: npt.NDArray[np.bool_]
    draw: Callable[[jax.Array], jax.Array]
    log_likelihood: Callable[[jax.Array], jax.Array]

    @property
    def nearest(self) -> float | None:
        """The KL divergence of the nearest member that is another distribution than the truth."""
        return _smallest(self.divergence[~self.same_as_truth])

    @property
    def nearest_less_harmful(self) -> float | None:
        """The KL divergence of the nearest member that says less harm at some input; only such a one can mislead."""
        less = (self.harm < self.true_harm - 1e-9).any(axis=1)
        return _smallest(self.divergence[less])


def build(name: ClassName, case: Case, separation: float) -> Problem:
    """A problem; under 64-bit mode.

    Args:
        name: the class.
        case: what the truth is.
        separation: distance between neighbours, as a share of the class's widest, in (0, 1].
    """
    match name:
        case "bernoulli":
            return _bernoulli(case, separation)
        case "categorical":
            return _categorical(case, separation)
        case "gaussian":
            return _gaussian(case, separation)
        case "lattice":
            return _lattice(case, separation)


def _bernoulli(case: Case, separation: float) -> Problem:
    """Rates around 0.3; harm is the outcome 1. Duplicate: the truth and a milder neighbour stand twice."""
    spacing = 0.08 * separation
    rates = np.array([0.3 + spacing * step for step in STEPS])
    if case == "duplicate":
        rates = np.append(rates, [rates[MIDDLE], rates[MIDDLE - 1]])
    true = 0.3 + spacing * SHIFTS[case]
    table = tuple(TableHypothesis(name=f"rate {place}", rates=float(rate)) for place, rate in enumerate(rates))
    family = FiniteTableFamily.from_spec(FiniteTable(family="finite-table", table=table), BooleanHarm(True), ())
    row = jnp.asarray(family.encode((), None))
    divergence = true * np.log(true / rates) + (1 - true) * np.log((1 - true) / (1 - rates))
    return Problem(
        harm=rates[:, None],
        true_harm=np.array([true]),
        divergence=divergence,
        same_as_truth=rates == true,
        draw=lambda key: jnp.stack([jnp.zeros(()), jax.random.bernoulli(key, true).astype(jnp.float64)]),
        log_likelihood=lambda seen: family.log_likelihood(family.arrays, row, seen[1]),
    )


def _categorical(case: Case, separation: float) -> Problem:
    """Three outcomes, of which the last one is harm."""

    def masses(steps: Floats) -> Floats:
        last = 0.2 + 0.05 * separation * steps
        return np.stack([0.6 - 0.5 * (last - 0.2), 0.2 - 0.5 * (last - 0.2), last], axis=-1)

    members = masses(np.array(STEPS, float))
    if case == "duplicate":
        members = np.concatenate([members, members[[MIDDLE, MIDDLE - 1]]])
    true = masses(np.array(SHIFTS[case]))
    log_members = np.log(members)
    return Problem(
        harm=members[:, 2:],
        true_harm=true[2:],
        divergence=np.sum(true * (np.log(true) - log_members), axis=1),
        same_as_truth=(members == true).all(axis=1),
        draw=lambda key: jnp.stack([jnp.zeros(()), jax.random.categorical(key, jnp.log(true)).astype(jnp.float64)]),
        log_likelihood=lambda seen: jnp.asarray(log_members)[:, seen[1].astype(jnp.int32)],
    )


def _gaussian(case: Case, separation: float) -> Problem:
    """Means of a Gaussian outcome of standard deviation 1; harm is an outcome far above the middle one."""
    spacing = 0.8 * separation
    harm = IntervalHarm(spacing * MIDDLE + 1.0, math.inf, True)
    inputs = np.array([[spacing]])
    members = np.arange(len(STEPS), dtype=float)[:, None]
    if case == "duplicate":
        # A second weight that no observation depends on: every member stands twice.
        inputs, members = np.array([[spacing, 0.0]]), np.array(list(itertools.product(range(7), repeat=2)), float)
    true = np.array([MIDDLE + SHIFTS[case], *([MIDDLE] if case == "duplicate" else [])])
    family = LinearGaussianLatticeFamily(7, 1.0, None, harm, tuple("ab"[: inputs.shape[1]]))
    return _regression(family, harm, inputs, inputs, members, true)


def _lattice(case: Case, separation: float) -> Problem:
    """Four weights in {0, 1}; inputs uniform. Duplicate: the last feature is never seen, but harm depends on it."""
    levels = np.array(list(itertools.product((0, 1), repeat=4)), float)
    seen = levels * [1, 1, 1, 0] if case == "duplicate" else levels
    harm = IntervalHarm(1.0 + separation, math.inf, True)
    true = np.array([1.0, SHIFTS[case], 1.0, 0.0])
    family = LinearGaussianLatticeFamily(2, 1.0, None, harm, tuple("abcd"))
    return _regression(family, harm, separation * seen, separation * levels, levels, true)


def _regression(
    family: LinearGaussianLatticeFamily, harm: IntervalHarm, seen: Floats, asked: Floats, members: Floats, true: Floats
) -> Problem:
    """Linear regression with noise 1: observations at the inputs `seen`, uniformly; harm at the inputs `asked`."""
    inputs, means = jnp.asarray(seen), jnp.asarray(seen @ true)
    harms = np.asarray(interval_harm(harm, 1.0, jnp.asarray(members @ asked.T)))

    def draw(key: jax.Array) -> jax.Array:
        of_input, of_noise = jax.random.split(key)
        place = jax.random.randint(of_input, (), 0, len(seen))
        return jnp.stack([place.astype(jnp.float64), means[place] + jax.random.normal(of_noise, (), jnp.float64)])

    divergence = np.mean(((members - true) @ seen.T) ** 2, axis=1) / 2.0
    return Problem(
        harm=harms,
        true_harm=np.asarray(interval_harm(harm, 1.0, jnp.asarray(asked @ true))),
        divergence=divergence,
        same_as_truth=divergence == 0.0,
        draw=draw,
        log_likelihood=lambda seen: family.log_likelihood(family.arrays, inputs[seen[0].astype(jnp.int32)], seen[1]),
    )


def _smallest(divergences: Floats) -> float | None:
    return float(divergences.min()) if len(divergences) else None
