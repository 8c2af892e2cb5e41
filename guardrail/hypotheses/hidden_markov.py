"""A named table of hidden Markov models: the outcome depends on a state that nobody sees, and so on the past.

Each action moves the hidden state by the transition matrix of its category; the state that is reached then decides
over the outcome. Under one hypothesis, with b(s) = P(state = s | past),

    p(s') = sum over s of b(s) T(s, s'),
    P(y | past) = sum over s' of p(s') e(y | s'),
    b'(s') = p(s') e(y | s') / P(y | past),

the forward recursion (Rabiner 1989, equations 19 to 21). Harm is the one-step prediction, the sum over s' of
p(s') P(harm | s').

All of it is in log space, so no state's probability becomes 0 by underflow: a state that is nearly ruled out today
may be the only one left tomorrow. Rounding: sums here have non-negative terms only, so an error of r nats in each
term is one of at most r nats in the sum; each step adds a few roundings of its largest logarithm. Dividing by
P(y | past) is exact bookkeeping: whatever number was subtracted from a belief is added to the log likelihood. So
the error of all log likelihoods together is at most the sum of the steps' own, and `Memory.rounding` is that sum.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt

from guardrail.domain import HarmEvent, IntegerHarm
from guardrail.hypotheses.base import Memory
from guardrail.hypotheses.finite_table import ONLY_CATEGORY, FiniteTableFamily, log_prior_of, of_category, spread
from guardrail.hypotheses.product_grid import EPSILON, on_cpu
from guardrail.policy.memory_checks import hidden_markov_categories
from guardrail.policy.memory_schema import HiddenMarkov, HiddenMarkovHypothesis
from guardrail.policy.schema import PRIOR_SUM_TOLERANCE, FiniteTable, TableHypothesis
from guardrail.policy.schema_base import CategoryKey

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterator, Mapping, Sequence

    from guardrail.hypotheses.base import Arrays, Row

SMALLEST_HARM = 1e-290
"""Of a hypothesis under which harm is possible: smaller probabilities may have been computed as 0."""


class HiddenMarkovFamily:
    """Hidden Markov models with known parameters, one hypothesis each. A row holds the number of its category.

    Hypotheses may differ in their number of states; S is the largest.

    Args:
        spec: the table.
        harm: the harm event over the outcome.

    :raises ValueError: if the table is inconsistent in itself, or the kind of outcome does not fit the harm event.
    """

    name = "hidden-markov"
    row_length = 1

    def __init__(self, spec: HiddenMarkov, harm: HarmEvent) -> None:
        if isinstance(harm, IntegerHarm):
            raise ValueError(f"{self.name} has a Boolean or a numeric outcome, so harm must be an event of one of them")
        self._hypotheses = spec.table
        self.size, self._states = len(spec.table), max(len(row.initial) for row in spec.table)
        categories = _categories(spec)
        # A state of a hypothesis is a row of a finite table: what it says of the outcome, and its harm.
        rows = [row for hypothesis in spec.table for row in _emissions(hypothesis, self._states, categories)]
        self._emission = FiniteTableFamily(
            FiniteTable(family="finite-table", category=spec.category if categories else None, table=tuple(rows)), harm
        )
        self._log_prior = log_prior_of([row.prior for row in spec.table])
        log_transition = _log_transitions(spec.table, self._states, categories)
        self._log_initial = _log_initial(spec.table, self._states)
        self.arrays: Arrays = {**self._emission.arrays, "log_transition": on_cpu(log_transition)}
        self.trace_key: Hashable = (self.name, self.size, self._states, self._emission.trace_key)
        self.assumptions: tuple[str, ...] = (
            "a hidden state moves with each reported action, and with nothing else, by probabilities that never change",
            "outcomes depend on the past through the hidden state alone",
            "every outcome is reported in order and before the next check",
        )

    @classmethod
    def from_spec(cls, spec: HiddenMarkov, harm: HarmEvent, feature_names: tuple[str, ...]) -> HiddenMarkovFamily:
        """The family that a policy describes.

        :raises ValueError: if the table is inconsistent, does not fit the harm event, or there are features.
        """
        if feature_names:
            raise ValueError(f"{spec.family} has no numeric features, got {', '.join(feature_names)}")
        return cls(spec, harm)

    def encode(self, features: Sequence[float], category: str | int | None) -> Row:
        """The category's number, float64[1].

        :raises InvalidInput: with reason UNKNOWN_CATEGORY if the table has no such category.
        """
        return self._emission.encode(features, category)

    def log_prior(self) -> npt.NDArray[np.float64]:
        """float64[H]: log prior masses."""
        return self._log_prior

    def initial_memory(self) -> Memory:
        """The initial distributions of the hidden state."""
        # Logarithms of numbers that were divided by their sum.
        rounding = 4 * EPSILON * (1.0 + _largest_finite(self._log_initial))
        return Memory(on_cpu(self._log_initial), on_cpu(np.float64(rounding)))

    def step(
        self, arrays: Arrays, memory: Memory, row: jax.Array, outcome: jax.Array
    ) -> tuple[Memory, jax.Array, jax.Array]:
        """One step of the forward recursion; see `hypotheses.base.HistoryFamily.step`."""
        log_emission = self._emission.log_likelihood(arrays, row, outcome).reshape(self.size, self._states)
        predicted = self._predict(arrays, memory, row)
        joint = predicted + log_emission
        log_likelihood = _log_sum(joint, axis=1)
        possible = jnp.isfinite(log_likelihood)[:, None]
        # An impossible hypothesis keeps a belief, so that its numbers stay numbers; it never becomes possible again.
        log_belief = jnp.where(possible, joint - jnp.where(possible, log_likelihood[:, None], 0.0), predicted)
        largest = _largest(memory.log_belief) + _largest(log_emission) + _largest(log_belief)
        own = self._emission.log_likelihood_rounding(arrays, row, outcome) + self._step_rounding(arrays, row, largest)
        after = Memory(log_belief, memory.rounding + own)
        sound = ~jnp.any(jnp.isnan(log_likelihood)) & jnp.isfinite(own)
        kept: Memory = jax.tree.map(lambda new, old: jnp.where(sound, new, old), after, memory)
        return kept, log_likelihood, own

    def harm(self, arrays: Arrays, memory: Memory, row: jax.Array) -> jax.Array:
        """float64[H]: the mean of the states' harm under the prediction.

        The prediction is normalised up to its rounding r in numerator and denominator, so it is raised by 2 r.
        """
        predicted = self._predict(arrays, memory, row)
        of_state = self._emission.harm_score(arrays, row).reshape(self.size, self._states)
        mean = jnp.sum(jnp.exp(predicted) * of_state, axis=1)
        rounding = memory.rounding + self._step_rounding(arrays, row, _largest(memory.log_belief))
        raised = mean * jnp.exp(2.0 * rounding) * (1.0 + 8 * (self._states + 8) * EPSILON)
        possible = jnp.any((predicted > -jnp.inf) & (of_state > 0.0), axis=1)
        harm = jnp.where(possible, jnp.clip(raised, SMALLEST_HARM, 1.0), 0.0)
        return jnp.where(jnp.isnan(mean), jnp.nan, harm)

    def describe(self, index: int) -> tuple[str, Mapping[str, float]]:
        """The hypothesis's name and its number of hidden states."""
        hypothesis = self._hypotheses[index]
        return hypothesis.name, {"hidden states": float(len(hypothesis.initial))}

    def _predict(self, arrays: Arrays, memory: Memory, row: jax.Array) -> jax.Array:
        """float64[H, S]: log probability of each state after the action."""
        return _log_sum(memory.log_belief[:, :, None] + of_category(arrays["log_transition"], row), axis=1)

    def _step_rounding(self, arrays: Arrays, row: jax.Array, largest: jax.Array) -> jax.Array:
        """Most by which one step moves a finite logarithm, `largest` being the size of those that it starts from."""
        size = largest + _largest(of_category(arrays["log_transition"], row))
        return EPSILON * (16.0 * size + 16.0 * self._states + 32.0)


def _log_sum(terms: jax.Array, axis: int) -> jax.Array:
    """Logarithm of the sum of exponentials; -inf if every term is -inf."""
    largest = jnp.max(terms, axis=axis, keepdims=True)
    anchor = jnp.where(jnp.isneginf(largest), 0.0, largest)
    return jnp.squeeze(anchor, axis) + jnp.log(jnp.sum(jnp.exp(terms - anchor), axis=axis))


def _largest(logs: jax.Array) -> jax.Array:
    """Size of the largest finite entry."""
    return jnp.max(jnp.where(jnp.isfinite(logs), jnp.abs(logs), 0.0))


def _categories(spec: HiddenMarkov) -> tuple[CategoryKey, ...]:
    """All categories in the order in which they first appear; empty if none are told apart."""
    named = [keys for row in spec.table for keys in hidden_markov_categories(row).values()]
    found = {(type(key), key): key for keys in named for key in keys}
    if bool(found) != (spec.category is not None):
        raise ValueError("the policy must say what the category is exactly if the table has values per category")
    return tuple(found.values())


def _emissions(
    row: HiddenMarkovHypothesis, states: int, categories: tuple[CategoryKey, ...]
) -> Iterator[TableHypothesis]:
    """One row of a finite table for each hidden state; states that a hypothesis lacks repeat its first one."""
    if (row.rates is None) == (row.normals is None):
        raise ValueError(f"hypothesis {row.name} needs exactly one of rates and normals")
    kind = "rates" if row.rates is not None else "normals"
    values: list[tuple[object, ...]] = spread(row.name, getattr(row, kind), categories or ONLY_CATEGORY, kind)
    if {len(value) for value in values} != {len(row.initial)}:
        raise ValueError(f"hypothesis {row.name} needs {kind} for each of its {len(row.initial)} hidden states")
    for state in range(states):
        of_state = [value[state if state < len(value) else 0] for value in values]
        given = dict(zip(categories, of_state, strict=True)) if categories else of_state[0]
        field = "rates" if kind == "rates" else "normal"
        yield TableHypothesis.model_validate({"name": f"{row.name} {state}", field: given})


def _log_initial(table: Sequence[HiddenMarkovHypothesis], states: int) -> npt.NDArray[np.float64]:
    """float64[H, S]; states that a hypothesis lacks have probability 0."""
    initial = np.zeros((len(table), states))
    for place, row in enumerate(table):
        initial[place, : len(row.initial)] = row.initial
    return _log_normalised(initial)


def _log_transitions(
    table: Sequence[HiddenMarkovHypothesis], states: int, categories: tuple[CategoryKey, ...]
) -> npt.NDArray[np.float64]:
    """float64[C, H, S, S], by present and next state; states that a hypothesis lacks stay where they are."""
    matrices = np.zeros((max(len(categories), 1), len(table), states, states))
    matrices[:] = np.eye(states)
    for place, row in enumerate(table):
        count = len(row.initial)
        for category, matrix in enumerate(
            spread(row.name, row.transitions, categories or ONLY_CATEGORY, "transitions")
        ):
            if {len(matrix), *map(len, matrix)} != {count}:
                raise ValueError(f"hypothesis {row.name} needs {count} x {count} transition probabilities")
            matrices[category, place, :count, :count] = matrix
    return _log_normalised(matrices)


def _log_normalised(chances: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Logarithms of distributions along the last axis."""
    total = chances.sum(axis=-1, keepdims=True)
    if not (np.abs(total - 1.0) <= PRIOR_SUM_TOLERANCE).all():
        raise ValueError("the probabilities of initial states and transitions must sum to 1")
    with np.errstate(divide="ignore"):
        return np.asarray(np.log(chances / total))


def _largest_finite(logs: npt.NDArray[np.float64]) -> float:
    return float(np.max(np.where(np.isfinite(logs), np.abs(logs), 0.0)))
