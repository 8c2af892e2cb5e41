"""A finite Markov decision process with unknown transitions: harm is reaching an unsafe state within some steps.

A hypothesis gives P(next state | state, action). The state is observed and part of every input, so given the
input the outcomes (next states) are independent, and the class is an enumerated one like any other.

Harm of an action a in a state s is the probability of an unsafe state within `horizon` steps: first a, then the
default policy. With V_0(s) = 1 in unsafe states, else 0, backward dynamic programming gives

    V_k(s) = 1 in unsafe states, 0 in terminal ones, else the mean of V_{k-1}(s') over the default policy and s',
    harm(s, a) = sum over s' of P(s' | s, a) V_{horizon-1}(s').

It is a sum of products of non-negative numbers, so its relative error grows by a few roundings a step; harms are
raised by more than that once, when the class is built.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt

from guardrail.domain import HarmEvent, IntegerHarm
from guardrail.errors import InvalidInput
from guardrail.hypotheses.finite_table import log_prior_of, of_category
from guardrail.hypotheses.product_grid import EPSILON, on_cpu
from guardrail.policy import mixture as mixtures
from guardrail.policy.memory_checks import MDP_FEATURES

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping, Sequence

    from guardrail.hypotheses.base import Arrays, Row
    from guardrail.policy.memory_schema import FiniteMdp

Floats = npt.NDArray[np.float64]
SMALLEST_HARM = 1e-290
"""Of a state from which harm is possible: smaller probabilities may have been computed as 0."""


class FiniteMdpFamily:
    """Transition models of one finite Markov decision process. A row holds the number of a (state, action) pair.

    Args:
        spec: the class.
        harm: the unsafe states; its count is the number of states.

    :raises ValueError: if the class is inconsistent in itself, too large, or does not fit the harm event.
    """

    name = "finite-mdp"
    row_length = 1
    row_arrays: frozenset[str] = frozenset()

    def __init__(self, spec: FiniteMdp, harm: IntegerHarm) -> None:
        self._harm, self._horizon = harm, spec.horizon
        self._table, self._mixture = spec.table, spec.mixture
        kernels = mixtures.kernels_of(spec)
        if not kernels or {len(kernel) for kernel in kernels.values()} != {harm.count}:
            raise ValueError(f"every kernel needs one row for each of the {harm.count} states")
        weights = self._weights(spec)
        self.size = self.width = len(weights)
        targets, of_kernel = _tables(spec)
        if targets.size * self.size > mixtures.MAX_ENTRIES:
            raise ValueError(f"the class has more than {mixtures.MAX_ENTRIES} transition probabilities")
        self._moves = targets.shape[1]
        probability = np.einsum("samk,hk->samh", of_kernel, weights)
        harms = _harm(spec, harm, targets, probability)
        self.arrays: Arrays = {name: on_cpu(table) for name, table in _pairs(targets, probability, harms).items()}
        self.trace_key: Hashable = (self.name, *targets.shape)
        self.assumptions: tuple[str, ...] = (
            "the next state depends on the reported state and action alone, with probabilities that never change",
            "the state in a check's context is the true one",
            _promise(spec),
        )

    @classmethod
    def from_spec(cls, spec: FiniteMdp, harm: HarmEvent, feature_names: tuple[str, ...]) -> FiniteMdpFamily:
        """The family that a policy describes.

        :raises ValueError: if the class is inconsistent, or harm or features do not fit.
        """
        if not isinstance(harm, IntegerHarm):
            raise ValueError(f"{spec.family} has the next state as its outcome, so harm must be a set of states")
        if tuple(sorted(feature_names)) != MDP_FEATURES:
            raise ValueError(f"{spec.family} needs the features {' and '.join(MDP_FEATURES)}, got {feature_names}")
        return cls(spec, harm)

    def encode(self, features: Sequence[float], category: str | int | None) -> Row:
        """The pair's number, float64[1]; `features` are action and state, sorted by name.

        :raises InvalidInput: with reason UNKNOWN_CATEGORY if there is no such state or action.
        """
        action, state = features
        for what, value, count in (("state", state, self._harm.count), ("action", action, self._moves)):
            if not (value.is_integer() and 0 <= value < count):
                raise InvalidInput(f"there is no {what} {value:g}; known are 0, ..., {count - 1}", "UNKNOWN_CATEGORY")
        return np.array([state * self._moves + action])

    def log_prior(self) -> Floats:
        """float64[H]: log prior masses; those of a mixture's grid are all the same."""
        return log_prior_of([row.prior for row in self._table] if self._table is not None else [None] * self.size)

    def log_likelihood(self, arrays: Arrays, row: jax.Array, outcome: jax.Array) -> jax.Array:
        """float64[H]: log probability of the next state; NaN for what is no state."""
        reached = of_category(arrays["successor"], row) == outcome
        log_probability = jnp.where(reached[:, None], of_category(arrays["log_probability"], row), -jnp.inf)
        state = (outcome >= 0.0) & (outcome < self._harm.count) & (outcome == jnp.floor(outcome))
        known = jnp.isfinite(of_category(arrays["largest_log"], row))
        return jnp.where(state & known, jnp.max(log_probability, axis=0), jnp.nan)

    def log_likelihood_rounding(self, arrays: Arrays, row: jax.Array, outcome: jax.Array) -> jax.Array:
        """float64[]: bound on the rounding error of every finite entry of `log_likelihood`.

        A probability is a sum of at most 8 products of two quotients, each off by a few units in the last place.
        """
        return EPSILON * (32.0 + 4.0 * of_category(arrays["largest_log"], row))

    def harm_score(self, arrays: Arrays, row: jax.Array) -> jax.Array:
        """float64[H]: the harm probability itself."""
        return of_category(arrays["harm"], row)

    def harm_score_ceiling(self, arrays: Arrays, row: jax.Array) -> jax.Array:
        """float64[1]: the whole class is one row, and every check looks at it."""
        return jnp.full(1, jnp.inf, jnp.float64)

    def harm_from_score(self, score: jax.Array) -> jax.Array:
        """The score, which is the harm probability."""
        return score

    def describe(self, index: int) -> tuple[str, Mapping[str, float]]:
        """A table's hypothesis by its name; a mixture's by its weights."""
        if self._mixture is None:
            assert self._table is not None
            return self._table[index].name, {}
        parameters = dict(zip(mixtures.kernel_names(self._mixture), self._points[index], strict=True))
        return ", ".join(f"{name} {weight:.4g}" for name, weight in parameters.items()), parameters

    def _weights(self, spec: FiniteMdp) -> Floats:
        """float64[H, kernels]: what share of each kernel a hypothesis holds."""
        if spec.mixture is None:
            return np.eye(len(spec.table or ()))
        if mixtures.grid_size(spec.mixture) > mixtures.MAX_COMBINATIONS:
            raise ValueError(f"the grids have more than {mixtures.MAX_COMBINATIONS} combinations")
        self._points = tuple(mixtures.combinations(spec.mixture))
        if not self._points:
            raise ValueError("no combination of the weights sums to at most 1")
        return np.array(self._points)


def _promise(spec: FiniteMdp) -> str:
    if spec.horizon == 1:
        return "harm means an unsafe state right after the action, and nothing about later steps"
    after = "actions drawn at random, all equally likely" if spec.default_policy == "uniform" else "the listed actions"
    return (
        f"harm means an unsafe state within {spec.horizon} steps if the action is followed by the policy's default "
        f"({after}); an agent that goes on otherwise is covered by its next checks only"
    )


def _tables(spec: FiniteMdp) -> tuple[npt.NDArray[np.int64], Floats]:
    """Successors int64[S, K, B], padded by -1, and their probabilities under each kernel, float64[S, K, B, kernels]."""
    kernels = tuple(mixtures.kernels_of(spec).values())
    try:
        found = mixtures.successors(kernels)
        most, moves = max(len(states) for row in found for states in row), len(found[0])
        targets = np.full((len(found), moves, most), -1, np.int64)
        probability = np.zeros((*targets.shape, len(kernels)))
        for state, row in enumerate(found):
            for move, states in enumerate(row):
                targets[state, move, : len(states)] = states
                for place, kernel in enumerate(kernels):
                    chances = mixtures.distribution(kernel[state][move])
                    probability[state, move, : len(states), place] = [chances.get(target, 0.0) for target in states]
    except (ValueError, IndexError) as error:
        raise ValueError("every row of a kernel needs one entry for each action") from error
    if targets.max() >= len(found):
        raise ValueError(f"state {targets.max()} does not exist; states are 0, ..., {len(found) - 1}")
    return targets, probability


def _harm(spec: FiniteMdp, harm: IntegerHarm, targets: npt.NDArray[np.int64], probability: Floats) -> Floats:
    """float64[S, K, H]: harm of every action, rounded up."""
    states, moves, most = targets.shape
    unsafe, terminal = np.zeros(states, bool), np.zeros(states, bool)
    unsafe[sorted(harm.harmful)] = True
    terminal[list(spec.terminal)] = True
    value = np.repeat(unsafe[:, None], probability.shape[-1], axis=1).astype(np.float64)
    # Whether an unsafe state can be reached at all: then a product that became 0 is not 0.
    possible, positive = value > 0.0, probability > 0.0
    for _ in range(spec.horizon - 1):
        means, reach = _expectation(targets, probability, value), _reachable(targets, positive, possible)
        if spec.default_policy == "uniform":
            mean, some = means.mean(axis=1), reach.any(axis=1)
        else:
            chosen = np.asarray(spec.default_policy, np.int64)
            mean, some = means[np.arange(states), chosen], reach[np.arange(states), chosen]
        after = np.where(unsafe[:, None], 1.0, np.where(terminal[:, None], 0.0, mean))
        reached = unsafe[:, None] | (some & ~terminal[:, None])
        if np.array_equal(after, value) and np.array_equal(reached, possible):
            break
        value, possible = after, reached
    found = _expectation(targets, probability, value)
    margin = 4 * spec.horizon * (most + moves + 32) * EPSILON
    raised = np.maximum(found * (1.0 + margin), SMALLEST_HARM)
    raised = np.where(_reachable(targets, positive, possible), np.minimum(raised, 1.0), 0.0)
    # Where the process is in an unsafe state already, the harm is there.
    return np.where(unsafe[:, None, None], 1.0, raised)


def _expectation(targets: npt.NDArray[np.int64], probability: Floats, value: Floats) -> Floats:
    """float64[S, K, H]: mean of float64[S, H] over the next state."""
    total = np.zeros((*targets.shape[:2], value.shape[1]))
    for place in range(targets.shape[2]):  # the padding has probability 0
        total += probability[:, :, place] * value[targets[:, :, place]]
    return total


def _reachable(
    targets: npt.NDArray[np.int64], positive: npt.NDArray[np.bool_], possible: npt.NDArray[np.bool_]
) -> npt.NDArray[np.bool_]:
    """bool[S, K, H]: whether a state of bool[S, H] can be next."""
    total = np.zeros((*targets.shape[:2], possible.shape[1]), bool)
    for place in range(targets.shape[2]):
        total |= positive[:, :, place] & possible[targets[:, :, place]]
    return total


def _pairs(targets: npt.NDArray[np.int64], probability: Floats, harms: Floats) -> dict[str, Floats]:
    """What kernels read, by the number of the (state, action) pair."""
    states, moves, most = targets.shape
    with np.errstate(divide="ignore"):
        log_probability = np.log(probability)
    size = np.where(np.isfinite(log_probability), np.abs(log_probability), 0.0)
    return {
        "successor": targets.reshape(-1, most).astype(np.float64),
        "log_probability": log_probability.reshape(states * moves, most, -1),
        "largest_log": size.max(axis=(2, 3)).reshape(-1),
        "harm": harms.reshape(states * moves, -1),
    }
