"""The oracle over a finite class of worlds with memory, whose outcomes depend on those before them.

What an outcome says about each hypothesis follows from the family's memory; once it is known, the posterior, the
sets and the maximum are those of any finite class. So a state is a memory beside a state of the enumerated oracle,
whose inputs are here the numbers that the memory gives: log likelihoods to observe, harms to bound.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from jax import lax

from guardrail.domain import Guarantee, HarmBound, PosteriorDetail, PosteriorSummary
from guardrail.errors import SnapshotInvalid
from guardrail.hypotheses.base import Memory
from guardrail.hypotheses.product_grid import on_cpu
from guardrail.oracles.base import MAX_BATCH, Rows
from guardrail.oracles.enumerated import EnumeratedOracle
from guardrail.oracles.enumerated_state import EnumeratedState
from guardrail.oracles.posteriors import fill

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Sequence

    from guardrail.hypotheses.base import Arrays, HistoryFamily, Row
    from guardrail.policy.schema import BoundSpec

IMPOSSIBLE = -1e300
"""Stands for a log likelihood of -inf, or of less than it, where only finite numbers are let through."""
BELIEF_MASS_TOLERANCE = 1e-6
"""How far the beliefs of a snapshot may be from a distribution."""


class HistoryState(NamedTuple):
    """What the hypotheses remember, and how probable they are."""

    memory: Memory
    posterior: EnumeratedState


class HistoryOracle:
    """Implements `oracles.base.Oracle` for a family with memory.

    Works in float64 on the CPU whatever the host program's JAX configuration. Its first `observe` and `bound`
    compile, which takes about a second; later ones do not.

    Args:
        family: the hypothesis class.
        bound: what to bound harm by.
    """

    needs_current = True
    unhurried = True

    def __init__(self, family: HistoryFamily, bound: BoundSpec) -> None:
        self.row_length = family.row_length
        self._family, self._programs = family, _compile(_Key((type(family), family.trace_key), family))
        self._posteriors = EnumeratedOracle(_Told(family), bound)
        self.guarantee: Guarantee = self._posteriors.guarantee

    def encode(self, features: Sequence[float], category: str | int | None) -> Row:
        """Encode one input as float64[F]; see `hypotheses.base.Family.encode`."""
        return self._family.encode(features, category)

    def init(self) -> HistoryState:
        """The prior, and nothing remembered."""
        return HistoryState(self._family.initial_memory(), self._posteriors.init())

    def observe(self, state: HistoryState, rows: Rows, outcomes: npt.NDArray[np.float64]) -> HistoryState:
        """Condition on N observations in order; see `oracles.base.Oracle.observe`.

        :raises ValueError: if the shapes are not [N, F] and [N].
        """
        rows, outcomes = self._rows(rows), np.asarray(outcomes, np.float64)
        if outcomes.shape != (len(rows),):
            raise ValueError(f"{len(rows)} rows need as many outcomes, got shape {outcomes.shape}")
        memory, told = state.memory, np.empty((len(rows), self._family.size + 1))
        with jax.enable_x64(True):
            for start in range(0, len(rows), MAX_BATCH):
                batch = slice(start, start + MAX_BATCH)
                buffer = fill(rows[batch], outcomes[batch])
                memory, found = self._programs.advance(self._family.arrays, memory, buffer)
                told[batch] = np.asarray(found)[: len(rows[batch])]
        return HistoryState(memory, self._posteriors.observe(state.posterior, told, np.zeros(len(rows))))

    def bound(self, state: HistoryState, rows: Rows, deadline: float | None = None) -> list[HarmBound]:
        """Bound the probability of harm of A inputs; see `oracles.base.Oracle.bound`.

        :raises ValueError: if the shape is not [A, F].
        """
        rows = self._rows(rows)
        told = np.zeros((len(rows), self._family.size + 1))
        if not (self.failed(state) or self.refuted(state)):
            with jax.enable_x64(True):
                for start in range(0, len(rows), MAX_BATCH):
                    batch = slice(start, start + MAX_BATCH)
                    found = self._programs.harms(self._family.arrays, state.memory, fill(rows[batch]))
                    told[batch, :-1] = np.asarray(found)[: len(rows[batch])]
        return self._posteriors.bound(state.posterior, told)

    def count(self, state: HistoryState) -> int:
        """Number of observations in the state."""
        return self._posteriors.count(state.posterior)

    def refuted(self, state: HistoryState) -> bool:
        """True if no hypothesis is plausible any more."""
        return self._posteriors.refuted(state.posterior)

    def failed(self, state: HistoryState) -> bool:
        """True if something that is not a number was observed."""
        return self._posteriors.failed(state.posterior)

    def summary(self, state: HistoryState, top: int = 5) -> PosteriorSummary:
        """The posterior at a glance; without masses if every hypothesis is impossible."""
        return self._posteriors.summary(state.posterior, top)

    def detail(self, state: HistoryState, limit: int) -> PosteriorDetail:
        """The most probable hypotheses, whatever they remember."""
        return self._posteriors.detail(state.posterior, limit)

    def dump(self, state: HistoryState) -> dict[str, npt.NDArray[Any]]:
        """The posterior's arrays, `log_belief` and `belief_rounding`."""
        memory = {
            "log_belief": np.asarray(state.memory.log_belief),
            "belief_rounding": np.asarray(state.memory.rounding),
        }
        return self._posteriors.dump(state.posterior) | memory

    def load(self, arrays: dict[str, npt.NDArray[Any]]) -> HistoryState:
        """The state that `dump` wrote.

        :raises SnapshotInvalid: if names, shapes or types do not fit this class, or the numbers contradict each other.
        """
        rest = dict(arrays)
        belief, rounding = rest.pop("log_belief", None), rest.pop("belief_rounding", None)
        shape = self._family.initial_memory().log_belief.shape
        if belief is None or belief.dtype != np.float64 or belief.shape != shape:
            raise SnapshotInvalid(f"a snapshot of this class holds log_belief as float64{list(shape)}")
        if rounding is None or rounding.dtype != np.float64 or rounding.shape != ():
            raise SnapshotInvalid("a snapshot of this class holds belief_rounding as float64[]")
        mass = np.exp(belief).sum(axis=1)
        if not ((np.abs(mass - 1.0) <= BELIEF_MASS_TOLERANCE).all() and 0.0 <= rounding < np.inf):
            raise SnapshotInvalid("the snapshot's beliefs are no distributions")
        return HistoryState(Memory(on_cpu(belief), on_cpu(rounding)), self._posteriors.load(rest))

    def _rows(self, rows: Rows) -> Rows:
        rows = np.asarray(rows, np.float64)
        if rows.ndim != 2 or rows.shape[1] != self.row_length:
            raise ValueError(f"rows must be float64[A, {self.row_length}], got shape {rows.shape}")
        return rows


class _Told:
    """The class as the enumerated oracle sees it: a row holds one number for each hypothesis.

    A row to observe is float64[H + 1], log likelihoods and their rounding; a row to bound is harms and an unused 0.
    """

    row_arrays: frozenset[str] = frozenset()

    def __init__(self, family: HistoryFamily) -> None:
        self.name, self.assumptions, self.describe = family.name, family.assumptions, family.describe
        self.size = self.width = family.size
        self.row_length = family.size + 1
        self.arrays: Arrays = {}
        self.trace_key: Hashable = ("told", family.size)
        self.log_prior = family.log_prior

    def encode(self, features: Sequence[float], category: str | int | None) -> Row:
        """The numbers themselves."""
        return np.asarray(features, np.float64)

    def log_likelihood(self, arrays: Arrays, row: jax.Array, outcome: jax.Array) -> jax.Array:
        """float64[H], as the row says."""
        return jnp.where(row[:-1] <= IMPOSSIBLE, -jnp.inf, row[:-1])

    def log_likelihood_rounding(self, arrays: Arrays, row: jax.Array, outcome: jax.Array) -> jax.Array:
        """float64[], as the row says."""
        return row[-1]

    def harm_score(self, arrays: Arrays, row: jax.Array) -> jax.Array:
        """float64[H], as the row says."""
        return row[:-1]

    def harm_score_ceiling(self, arrays: Arrays, row: jax.Array) -> jax.Array:
        """float64[1]: the whole class is one row, and every check looks at it."""
        return jnp.full(1, jnp.inf, jnp.float64)

    def harm_from_score(self, score: jax.Array) -> jax.Array:
        """The score, which is the harm probability."""
        return score


class _Programs(NamedTuple):
    """The compiled programs of one family; call them under `jax.enable_x64(True)`.

    Attributes:
        advance: (arrays, memory, observations) -> memory, float64[MAX_BATCH, H + 1].
        harms: (arrays, memory, inputs) -> float64[MAX_BATCH, H].

    As in `enumerated_kernels`, a loop runs over the first n lines of a buffer of fixed size, so that a result cannot
    depend on how inputs were batched, and nothing is compiled again.
    """

    advance: Callable[..., tuple[Memory, jax.Array]]
    harms: Callable[..., jax.Array]


@dataclass(frozen=True)
class _Key:
    identity: Hashable
    family: HistoryFamily = field(compare=False)


@lru_cache(maxsize=64)
def _compile(key: _Key) -> _Programs:
    family = key.family

    def advance(arrays: Arrays, memory: Memory, observations: jax.Array) -> tuple[Memory, jax.Array]:
        def step(place: jax.Array, carried: tuple[Memory, jax.Array]) -> tuple[Memory, jax.Array]:
            before, told = carried
            row, outcome = observations[place, :-2], observations[place, -2]
            after, log_likelihood, rounding = family.step(arrays, before, row, outcome)
            line = jnp.append(jnp.maximum(log_likelihood, IMPOSSIBLE), rounding)
            return after, lax.dynamic_update_index_in_dim(told, line, place, 0)

        told = jnp.zeros((MAX_BATCH, family.size + 1), jnp.float64)
        count = observations[0, -1].astype(jnp.int32)
        return cast("tuple[Memory, jax.Array]", lax.fori_loop(0, count, step, (memory, told)))

    def harms(arrays: Arrays, memory: Memory, inputs: jax.Array) -> jax.Array:
        def step(place: jax.Array, told: jax.Array) -> jax.Array:
            line = family.harm(arrays, memory, inputs[place, :-1])
            return cast("jax.Array", lax.dynamic_update_index_in_dim(told, line, place, 0))

        told = jnp.zeros((MAX_BATCH, family.size), jnp.float64)
        return cast("jax.Array", lax.fori_loop(0, inputs[0, -1].astype(jnp.int32), step, told))

    return _Programs(jax.jit(advance), jax.jit(harms))
