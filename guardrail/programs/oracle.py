"""A program's oracle, seen from the service: the same protocol, with the work done in a process of its own.

The service keeps what a state is made of: a base (the arrays of a dump, or the prior) and the observations
since. The process holds the states themselves, as a cache. So a process that fails loses nothing: the
next one is given base and observations again. While there is none, every check is rejected.
"""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from guardrail.domain import NO_GUARANTEE, Guarantee, HarmBound, PosteriorDetail, PosteriorSummary, Reason, ReasonCode
from guardrail.errors import SnapshotInvalid
from guardrail.hypotheses.program_errors import ProgramError
from guardrail.hypotheses.program_inputs import ProgramInputs
from guardrail.oracles.base import MAX_BATCH, Rows
from guardrail.policy.program_schema import PosteriorUse
from guardrail.programs import codec
from guardrail.programs.child import ChildFailed
from guardrail.programs.history import History
from guardrail.programs.session import Session, UnknownState

if TYPE_CHECKING:
    from guardrail.hypotheses.base import Row
    from guardrail.policy import Policy
    from guardrail.policy.program_schema import ProgramSpec
    from guardrail.programs.messages import Arrays

OBSERVATIONS_AT_A_TIME = 8
"""Observations in one question; the time limit is for one question."""
DUMP_EVERY = 512
"""Observations after which a state's arrays are fetched, so that rebuilding stays short."""
LARGEST_DUMP = 512 * 2**20
"""Bytes of a state that is fetched; a larger one is always made again from all its observations."""
_BASE = "base/"
_FINGERPRINT = "fingerprint"
_PRIOR = 0

_Answer = tuple[dict[str, Any], "Arrays"]


@dataclass(frozen=True, eq=False)
class IsolatedState:
    """What a posterior is made of.

    Attributes:
        key: names the state in the program's process.
        base: arrays of a dump; None for the prior.
        base_count: number of observations in the base.
        history: the observations since.
    """

    key: int
    base: Mapping[str, npt.NDArray[Any]] | None
    base_count: int
    history: History = field(repr=False)


class IsolatedOracle:
    """Implements `oracles.base.Oracle` for a program. Safe to share between threads; they take turns.

    The program and its class are on the CPU, whatever device the service computes on.

    Args:
        policy: a policy whose hypotheses are a program.
        clock: seconds, for the pause after repeated failures.

    :raises ProgramError: if the program cannot be loaded, or is no hypothesis class.
    """

    def __init__(self, policy: Policy, *, clock: Callable[[], float] = time.monotonic) -> None:
        assert policy.program is not None
        self._policy, self._source = policy, policy.program
        self._spec: ProgramSpec = policy.spec.hypotheses  # type: ignore[assignment]
        shapes = [(feature.name, feature.length) for feature in policy.programs.features]
        self._inputs = ProgramInputs(shapes, self._spec)
        self.row_length = self._inputs.row_length
        self._keys = itertools.count(_PRIOR + 1)
        # An observation may run (and compile) the whole method of a posterior.
        refreshing = isinstance(self._spec.use, PosteriorUse)
        self._observe_seconds = self._spec.limits.load_seconds if refreshing else self._spec.limits.seconds
        self._initial = IsolatedState(_PRIOR, None, 0, History.empty())
        self._session = Session(policy, clock)
        self.guarantee: Guarantee = codec.guarantee_from_dict(self._session.loaded["guarantee"])

    # ------------------------------------------------------------ the protocol

    unhurried = False
    needs_current = False
    """Outcomes are independent given a hypothesis, so that a bound from an older posterior is only looser."""

    def encode(self, features: Sequence[float], category: str | int | None) -> Row:
        """Features, and the category's index, as float64[F].

        :raises InvalidInput: with reason UNKNOWN_CATEGORY if the category is not of the class.
        """
        return self._inputs.encode(features, category)

    def init(self) -> IsolatedState:
        """The prior."""
        return self._initial

    def observe(self, state: IsolatedState, rows: Rows, outcomes: npt.NDArray[np.float64]) -> IsolatedState:
        """Condition on N observations in order; they are kept whatever the program makes of them.

        :raises ValueError: if the shapes are not [N, F] and [N].
        """
        rows, outcomes = self._rows(rows), np.asarray(outcomes, np.float64)
        if outcomes.shape != (len(rows),):
            raise ValueError(f"{len(rows)} rows need as many outcomes, got shape {outcomes.shape}")
        if not len(rows):
            return state
        history = state.history.extended(rows, outcomes)
        after = IsolatedState(next(self._keys), state.base, state.base_count, history)
        try:
            with self._session.lock:
                self._advance(state, after, rows, outcomes)
                return self._rebased(after)
        except ChildFailed:
            return after  # checks of it try again, and are rejected while that fails

    def bound(self, state: IsolatedState, rows: Rows, deadline: float | None = None) -> list[HarmBound]:
        """Bound the probability of harm of A inputs; a bound of 1 with MODEL_FAILED if the program fails.

        Args:
            state: any state of this oracle.
            rows: float64[A, F], encoded inputs.
            deadline: of `time.monotonic`; a check whose turn has not come by then is rejected, and a search that
                reaches it gives the best sound bound so far.

        :raises ValueError: if the shape is not [A, F].
        """
        rows = self._rows(rows)
        found: list[HarmBound] = []
        for start in range(0, len(rows), MAX_BATCH):
            batch = rows[start : start + MAX_BATCH]
            try:
                found += self._bound(state, batch, deadline)
            except ChildFailed as failure:
                found += [self._no_bound(str(failure))] * len(batch)
        return found

    def count(self, state: IsolatedState) -> int:
        """Number of observations in the state."""
        return state.base_count + len(state.history)

    def refuted(self, state: IsolatedState) -> bool:
        """True if no hypothesis is plausible any more."""
        answer = self._summary(state, 0)
        return answer is not None and bool(answer["summary"]["refuted"])

    def failed(self, state: IsolatedState) -> bool:
        """True if the state, or the program, has no number to give."""
        answer = self._summary(state, 0)
        return answer is None or bool(answer["failed"])

    def summary(self, state: IsolatedState, top: int = 5) -> PosteriorSummary:
        """The posterior at a glance; the number of observations alone if the program fails."""
        answer = self._summary(state, top)
        if answer is None:
            return PosteriorSummary(self.count(state), False, None, None, None)
        return codec.summary_from_dict(answer["summary"], self.count(state))

    def detail(self, state: IsolatedState, limit: int) -> PosteriorDetail:
        """Some hypotheses, or parameters, in full; nothing if the program fails."""
        question = {"op": "detail", "state": state.key, "limit": limit}
        try:
            with self._session.lock:
                answer, _ = self._session.attempt(lambda: self._of_state(state, question, {}))
            return codec.detail_from_dict(answer["detail"], limit)
        except (ChildFailed, AttributeError, KeyError, TypeError, ValueError):
            return PosteriorDetail()

    def dump(self, state: IsolatedState) -> dict[str, npt.NDArray[Any]]:
        """Base arrays, the observations since and a fingerprint; the program's own arrays if it answers."""
        with contextlib.suppress(ChildFailed):  # without it, base and observations say the same
            state = self._dumped(state)
        rows, outcomes = state.history.arrays(self.row_length)
        base = {_BASE + name: np.asarray(value) for name, value in (state.base or {}).items()}
        rest = {"rows": rows, "outcomes": outcomes, "base_count": np.asarray(state.base_count, np.int64)}
        return base | rest | {_FINGERPRINT: self._fingerprint()}

    def load(self, arrays: dict[str, npt.NDArray[Any]]) -> IsolatedState:
        """The state that `dump` wrote.

        :raises SnapshotInvalid: if names, shapes or types do not fit this class, or the program gives other numbers
            than the one that wrote it, for instance because a library draws otherwise.
        """
        try:
            rows, outcomes, base_count = arrays["rows"], arrays["outcomes"], int(arrays["base_count"])
        except (KeyError, TypeError, ValueError) as error:
            raise SnapshotInvalid("a snapshot of a program holds rows, outcomes and base_count") from error
        if _FINGERPRINT not in arrays or not np.array_equal(arrays[_FINGERPRINT], self._fingerprint()):
            raise SnapshotInvalid("the snapshot is of a program that gives other numbers")
        base = {name.removeprefix(_BASE): value for name, value in arrays.items() if name.startswith(_BASE)}
        fits = rows.dtype == outcomes.dtype == np.float64 and rows.shape == (len(outcomes), self.row_length)
        if not fits or base_count < 0 or (base_count > 0) != bool(base):
            raise SnapshotInvalid("the snapshot's arrays do not fit the program")
        history = History.empty()
        if len(rows):
            history = history.extended(rows, outcomes)
        state = IsolatedState(next(self._keys), base or None, base_count, history)
        try:
            with self._session.lock:
                self._session.attempt(lambda: self._rebuild(state))
        except ChildFailed as failure:
            raise SnapshotInvalid(str(failure)) from failure
        return state

    def prior_predictive(self) -> Arrays:
        """The prior predictive check; see `prior_predictive.check`.

        :raises ProgramError: if the program fails.
        """
        try:
            with self._session.lock:
                return self._session.attempt(
                    lambda: self._session.ask({"op": "prior_predictive"}, {}, self._spec.limits.load_seconds)
                )[1]
        except ChildFailed as failure:
            raise ProgramError(f"{self._source.name} {failure}") from failure

    def close(self) -> None:
        """End the process; whatever is asked later is rejected."""
        self._session.close()

    # ------------------------------------------------------------ asking

    def _bound(self, state: IsolatedState, rows: Rows, deadline: float | None) -> list[HarmBound]:
        left = -1.0 if deadline is None else max(0.0, deadline - time.monotonic())
        if not self._session.lock.acquire(timeout=left):
            raise ChildFailed("is busy with other checks until after the deadline")
        try:
            seconds = None if deadline is None else max(0.0, deadline - time.monotonic())
            question = {"op": "bound", "state": state.key, "seconds": seconds}
            answer, _ = self._session.attempt(lambda: self._of_state(state, question, {"rows": rows}))
        finally:
            self._session.lock.release()
        try:
            bounds = [codec.bound_from_dict(values, self.guarantee) for values in answer["bounds"]]
        except (KeyError, TypeError, ValueError) as error:
            raise ChildFailed(f"answers with no bound: {error}") from error
        if len(bounds) != len(rows):
            raise ChildFailed(f"answers with {len(bounds)} bounds to {len(rows)} inputs")
        return [self._named(bound, bool(np.isfinite(row).all())) for bound, row in zip(bounds, rows, strict=True)]

    def _named(self, bound: HarmBound, finite: bool) -> HarmBound:
        """A number that is none comes from the program if the input is finite."""
        if bound.failure is None or bound.failure.code is not ReasonCode.NUMERICAL_FAILURE or not finite:
            return bound
        return self._no_bound("gives a log-likelihood or a harm probability that is no number (or not in [0, 1])")

    def _no_bound(self, why: str) -> HarmBound:
        reason = Reason(ReasonCode.MODEL_FAILED, f"{self._source.name} {why}")
        return HarmBound(1.0, None, None, NO_GUARANTEE, reason)

    def _summary(self, state: IsolatedState, top: int) -> dict[str, Any] | None:
        question = {"op": "summary", "state": state.key, "top": top}
        try:
            with self._session.lock:
                return self._session.attempt(lambda: self._of_state(state, question, {}))[0]
        except ChildFailed:
            return None

    def _advance(
        self, before: IsolatedState, after: IsolatedState, rows: Rows, outcomes: npt.NDArray[np.float64]
    ) -> None:
        def run() -> _Answer:
            try:
                return self._extend(before.key, after.key, rows, outcomes)
            except UnknownState:
                return self._rebuild(after)

        self._session.attempt(run)

    def _of_state(self, state: IsolatedState, question: dict[str, Any], arrays: Arrays) -> _Answer:
        """Ask about a state, which is made again if the process does not have it."""
        try:
            return self._session.ask(question, arrays, self._spec.limits.seconds)
        except UnknownState:
            self._rebuild(state)
            return self._session.ask(question, arrays, self._spec.limits.seconds)

    def _rebuild(self, state: IsolatedState) -> _Answer:
        base = dict(state.base or {})
        answer = self._session.ask({"op": "restore", "state": state.key}, base, self._spec.limits.seconds)
        rows, outcomes = state.history.arrays(self.row_length)
        return self._extend(state.key, state.key, rows, outcomes) if len(rows) else answer

    def _extend(self, source: int, target: int, rows: Rows, outcomes: npt.NDArray[np.float64]) -> _Answer:
        answer: _Answer = ({}, {})
        for start in range(0, len(rows), OBSERVATIONS_AT_A_TIME):
            batch = slice(start, start + OBSERVATIONS_AT_A_TIME)
            question = {"op": "observe", "state": source if start == 0 else target, "into": target}
            arrays = {"rows": rows[batch], "outcomes": outcomes[batch]}
            answer = self._session.ask(question, arrays, self._observe_seconds)
        return answer

    def _rebased(self, state: IsolatedState) -> IsolatedState:
        return self._dumped(state) if len(state.history) >= DUMP_EVERY else state

    def _dumped(self, state: IsolatedState) -> IsolatedState:
        """The same state on a base of its own, if that is not too large."""
        if not len(state.history):
            return state
        with self._session.lock:
            arrays = self._session.attempt(lambda: self._of_state(state, {"op": "dump", "state": state.key}, {}))[1]
        if sum(array.nbytes for array in arrays.values()) > LARGEST_DUMP:
            return state
        return IsolatedState(state.key, arrays, self.count(state), History.empty())

    def _fingerprint(self) -> npt.NDArray[np.uint8]:
        return np.frombuffer(str(self._session.fingerprint).encode(), np.uint8)

    def _rows(self, rows: Rows) -> Rows:
        rows = np.asarray(rows, np.float64)
        if rows.ndim != 2 or rows.shape[1] != self.row_length:
            raise ValueError(f"rows must be float64[A, {self.row_length}], got shape {rows.shape}")
        return rows
