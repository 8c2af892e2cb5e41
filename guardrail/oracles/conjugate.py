"""The conjugate oracle: continuous classes whose posterior is a few sums, under `ratio` and `predictive`.

Every observation is added, and every input bounded, by one compiled loop with a dynamic number
of steps over a fixed buffer of MAX_BATCH rows. Each step runs the same machine code on one row,
so neither states nor bounds depend on how inputs were cut into batches.
"""

from __future__ import annotations

import functools
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt

from guardrail.domain import (
    NO_GUARANTEE,
    CautiousHypothesis,
    Guarantee,
    GuaranteeKind,
    HarmBound,
    Parameter,
    PosteriorDetail,
    PosteriorSummary,
    Reason,
    ReasonCode,
)
from guardrail.errors import SnapshotInvalid
from guardrail.hypotheses.base import Arrays, Row
from guardrail.hypotheses.conjugate import ConjugateFamily
from guardrail.oracles.base import MAX_BATCH, Oracle, Rows
from guardrail.oracles.guarantees import ALL_REPORTED, FIXED_BEFORE, IN_CLASS, confidence
from guardrail.policy.schema import BoundSpec, PredictiveBound, RatioBound

_SOURCE = "Waudby-Smith and Ramdas 2020, prior-posterior ratio"
_NUMERICAL = Reason(ReasonCode.NUMERICAL_FAILURE, "the harm bound could not be computed: a value is not finite")
_REFUTED = Reason(ReasonCode.CLASS_REFUTED, "the observations refute the hypothesis class: no member is plausible")


class ConjugateState:
    """An immutable posterior. What all its checks share is computed at the first check and kept."""

    __slots__ = ("arrays", "count", "prepared", "valid")

    def __init__(self, arrays: Arrays, valid: Any, count: int) -> None:
        self.arrays, self.valid, self.count = arrays, valid, count
        self.prepared: Any = None


@dataclass(frozen=True)
class _Program:
    """What compiled code depends on. Equal programs share it, so a reloaded policy compiles nothing anew."""

    key: Hashable
    delta: float | None
    running: bool
    family: ConjugateFamily = field(compare=False)


@functools.partial(jax.jit, static_argnums=0)
def _observe(
    program: _Program, arrays: Arrays, valid: jax.Array, rows: jax.Array, outcomes: jax.Array, number: jax.Array
) -> tuple[Arrays, jax.Array]:
    family = program.family

    def step(i: jax.Array, carry: tuple[Arrays, jax.Array]) -> tuple[Arrays, jax.Array]:
        arrays, valid = carry
        fits = family.accepts(rows[i]) & family.accepts_outcome(outcomes[i])
        row, outcome = jnp.where(fits, rows[i], 0.0), jnp.where(fits, outcomes[i], 0.0)
        return family.update(program.delta, program.running, arrays, row, outcome), valid & fits

    result: tuple[Arrays, jax.Array] = jax.lax.fori_loop(0, number, step, (dict(arrays), valid))
    return result


@functools.partial(jax.jit, static_argnums=0)
def _prepare(program: _Program, arrays: Arrays) -> Any:
    return program.family.prepare(program.delta, arrays)


@functools.partial(jax.jit, static_argnums=0)
def _parameters(program: _Program, arrays: Arrays, prepared: Any) -> jax.Array:
    """float64[N, 4]: see `ConjugateFamily.parameters`."""
    return program.family.parameters(program.delta, arrays, prepared)


@functools.partial(jax.jit, static_argnums=0)
def _bound(
    program: _Program, arrays: Arrays, valid: jax.Array, prepared: Any, rows: jax.Array, number: jax.Array
) -> jax.Array:
    """float64[MAX_BATCH, 3 + P]: refuted, bound, predictive harm, parameters; NaN where there is none."""
    family = program.family

    def step(i: jax.Array, packed: jax.Array) -> jax.Array:
        fits = family.accepts(rows[i])
        row = jnp.where(fits, rows[i], 0.0)
        value, predictive, refuted, parameters = family.evaluate(program.delta, arrays, prepared, row)
        line = jnp.concatenate([jnp.stack([refuted.astype(row.dtype), value, predictive]), parameters])
        return packed.at[i].set(jnp.where(fits & valid, line, jnp.nan))

    empty = jnp.full((MAX_BATCH, 3 + len(family.parameter_names)), jnp.nan)
    packed: jax.Array = jax.lax.fori_loop(0, number, step, empty)
    return packed


class ConjugateOracle:
    """Posterior and bounds of one conjugate family under one rule; see `build`."""

    needs_current = False
    unhurried = True

    def __init__(self, family: ConjugateFamily, delta: float | None, running: bool) -> None:
        family.check_rule(delta, running)
        self._family = family
        self._program = _Program(family.trace_key, delta, running, family)
        self.row_length = family.row_length
        self.guarantee = _guarantee(family, delta)

    def encode(self, features: Sequence[float], category: str | int | None) -> Row:
        """Encode one input as float64[F].

        :raises InvalidInput: with reason UNKNOWN_CATEGORY if the category is not of the class.
        """
        return self._family.encode(features, category)

    def init(self) -> ConjugateState:
        """The prior."""
        return self._state(self._family.initial(), np.ones((), bool), 0)

    def observe(self, state: ConjugateState, rows: Rows, outcomes: npt.NDArray[np.float64]) -> ConjugateState:
        """Condition on N observations in order; see `oracles.base.Oracle`.

        An observation that is no input or no outcome of the class leaves a state without bounds.

        :raises ValueError: if the shapes do not fit.
        """
        rows = self._check_rows(rows)
        outcomes = np.asarray(outcomes, dtype=np.float64)
        if outcomes.shape != (len(rows),):
            raise ValueError(f"expected {len(rows)} outcomes, got shape {outcomes.shape}")
        arrays, valid = state.arrays, state.valid
        with jax.enable_x64(True):
            for start in range(0, len(rows), MAX_BATCH):
                chunk = slice(start, start + MAX_BATCH)
                number = np.int32(len(rows[chunk]))
                arrays, valid = _observe(
                    self._program, arrays, valid, _padded(rows[chunk]), _padded(outcomes[chunk]), number
                )
        return ConjugateState(arrays, valid, state.count + len(rows))

    def bound(self, state: ConjugateState, rows: Rows, deadline: float | None = None) -> list[HarmBound]:
        """Bound the probability of harm of A inputs; see `oracles.base.Oracle`.

        :raises ValueError: if the shape does not fit.
        """
        rows = self._check_rows(rows)
        prepared = self._prepared(state)
        bounds: list[HarmBound] = []
        for start in range(0, len(rows), MAX_BATCH):
            chunk = rows[start : start + MAX_BATCH]
            with jax.enable_x64(True):
                packed = _bound(
                    self._program, state.arrays, state.valid, prepared, _padded(chunk), np.int32(len(chunk))
                )
            bounds += map(self._unpack, chunk, np.asarray(packed))
        return bounds

    def count(self, state: ConjugateState) -> int:
        """Number of observations in the state."""
        return state.count

    def refuted(self, state: ConjugateState) -> bool:
        """True if no hypothesis is plausible any more: every check must be rejected."""
        prepared = self._prepared(state)
        return bool(prepared["refuted"] if isinstance(prepared, dict) else prepared.refuted)

    def failed(self, state: ConjugateState) -> bool:
        """True if something that is not a number was observed."""
        return not bool(state.valid)

    def summary(self, state: ConjugateState, top: int = 5) -> PosteriorSummary:
        """The posterior at a glance: `top` posterior means by name."""
        arrays = {key: np.asarray(value) for key, value in state.arrays.items()}
        means = self._family.top(arrays, self._prepared(state), top)
        return PosteriorSummary(state.count, self.refuted(state), None, None, None, means)

    def detail(self, state: ConjugateState, limit: int) -> PosteriorDetail:
        """The first parameters of the class; none if a number of theirs is not one."""
        names = self._family.names_of_parameters(limit)
        with jax.enable_x64(True):
            table = np.asarray(_parameters(self._program, state.arrays, self._prepared(state)))[: len(names)]
        if self.failed(state) or not np.isfinite(table[:, :2]).all():
            return PosteriorDetail()
        known = self._program.delta is not None and not self.refuted(state)

        def told(name: str, mean: float, deviation: float, low: float, high: float) -> Parameter:
            # False for what is no number.
            return Parameter(name, mean, deviation, *((low, high) if known and low <= high else ()))

        return PosteriorDetail(parameters=tuple(told(n, *line) for n, line in zip(names, table.tolist(), strict=True)))

    def dump(self, state: ConjugateState) -> dict[str, npt.NDArray[Any]]:
        """The state as named arrays from which `load` rebuilds it exactly."""
        extra = {"valid": np.asarray(state.valid), "count": np.asarray(state.count, dtype=np.int64)}
        return {key: np.array(value) for key, value in state.arrays.items()} | extra

    def load(self, arrays: dict[str, npt.NDArray[Any]]) -> ConjugateState:
        """The state that `dump` wrote.

        :raises SnapshotInvalid: if names, shapes, types or values do not fit this class.
        """
        expected = self.dump(self.init())
        if set(arrays) != set(expected):
            raise SnapshotInvalid(f"a {self._family.name} snapshot holds {sorted(expected)}, not {sorted(arrays)}")
        for key, value in expected.items():
            found = arrays[key]
            if not isinstance(found, np.ndarray) or (found.shape, found.dtype) != (value.shape, value.dtype):
                raise SnapshotInvalid(
                    f"{key} of a {self._family.name} snapshot must be {value.dtype}{list(value.shape)}"
                )
        own = {key: np.array(arrays[key]) for key in self._family.initial()}
        valid, count = np.array(arrays["valid"]), int(arrays["count"])
        problem = "the count is negative" if count < 0 else None
        if problem is None and valid:
            problem = self._family.check_arrays(own, count)
        if problem is not None:
            raise SnapshotInvalid(f"damaged {self._family.name} snapshot: {problem}")
        return self._state(own, valid, count)

    def _state(self, arrays: Mapping[str, npt.NDArray[Any]], valid: npt.NDArray[Any], count: int) -> ConjugateState:
        with jax.enable_x64(True):
            return ConjugateState({k: jnp.asarray(v) for k, v in arrays.items()}, jnp.asarray(valid), count)

    def _check_rows(self, rows: Rows) -> Rows:
        rows = np.asarray(rows, dtype=np.float64)
        if rows.ndim != 2 or rows.shape[1] != self.row_length:
            raise ValueError(f"expected rows of shape [N, {self.row_length}], got {list(rows.shape)}")
        return rows

    def _prepared(self, state: ConjugateState) -> Any:
        if state.prepared is None:
            with jax.enable_x64(True):
                state.prepared = _prepare(self._program, state.arrays)
        return state.prepared

    def _unpack(self, row: Row, packed: npt.NDArray[np.float64]) -> HarmBound:
        refuted, value, predictive, *parameters = packed.tolist()
        # Comparisons with a number that is not one are false: what is not in [0, 1] is a failure.
        if refuted == 1.0:
            return HarmBound(1.0, predictive if 0 <= predictive <= 1 else None, None, NO_GUARANTEE, _REFUTED)
        if not (refuted == 0.0 and 0 <= value <= 1 and 0 <= predictive <= 1):
            return HarmBound(1.0, None, None, NO_GUARANTEE, _NUMERICAL)
        if self._program.delta is None:
            return HarmBound(value, predictive, None, self.guarantee)
        named = zip(self._family.parameter_names, parameters, strict=True)
        shown = {name: number for name, number in named if np.isfinite(number)}
        cautious = CautiousHypothesis(self._family.hypothesis_name(row), shown, value, None)
        return HarmBound(value, predictive, cautious, self.guarantee)


def _padded(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    buffer = np.zeros((MAX_BATCH, *values.shape[1:]))
    buffer[: len(values)] = values
    return buffer


def _guarantee(family: ConjugateFamily, delta: float | None) -> Guarantee:
    if delta is None:
        return Guarantee(GuaranteeKind.NONE, 0.0, (), "posterior predictive harm: nothing is promised")
    assumptions = (*family.assumptions, IN_CLASS, ALL_REPORTED, FIXED_BEFORE)
    return Guarantee(GuaranteeKind.THEOREM, confidence(delta), assumptions, f"{_SOURCE}; {family.source_note}")


def build(family: ConjugateFamily, bound: BoundSpec) -> Oracle:
    """The oracle of a conjugate family under a policy's bound.

    :raises ValueError: if the bound is neither `ratio` nor `predictive`, or the family cannot keep it.
    """
    if isinstance(bound, PredictiveBound):
        return ConjugateOracle(family, None, False)
    if isinstance(bound, RatioBound):
        return ConjugateOracle(family, bound.delta, bound.running)
    raise ValueError(f"{family.name} supports the bounds ratio and predictive, not {bound.kind}")
