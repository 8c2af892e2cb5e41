"""The oracle over a finite class: every hypothesis's posterior, exactly, one array entry each."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
import numpy.typing as npt

from guardrail.domain import (
    NO_GUARANTEE,
    CautiousHypothesis,
    Guarantee,
    HarmBound,
    Hypothesis,
    PosteriorDetail,
    PosteriorSummary,
    Reason,
    ReasonCode,
    Search,
)
from guardrail.errors import SnapshotInvalid
from guardrail.hypotheses.base import SufficientStatistics
from guardrail.oracles.base import MAX_BATCH, Rows
from guardrail.oracles.blocks import Blocks
from guardrail.oracles.enumerated_kernels import kernels
from guardrail.oracles.enumerated_state import Answers, EnumeratedState
from guardrail.oracles.guarantees import guarantee
from guardrail.oracles.placement import cpu
from guardrail.oracles.posteriors import EPSILON, Account, Posterior, Sums, fill
from guardrail.oracles.search import Result
from guardrail.policy.schema import BoundSpec, PlausibleBound, RatioBound

if TYPE_CHECKING:
    from collections.abc import Sequence

    from guardrail.hypotheses.base import EnumeratedFamily, Row
    from guardrail.oracles.search import Progress

_NOT_FINITE = HarmBound(
    1.0,
    None,
    None,
    NO_GUARANTEE,
    Reason(ReasonCode.NUMERICAL_FAILURE, "an input, an outcome or a result is not a finite number"),
)
_CLASS_REFUTED = HarmBound(
    1.0,
    None,
    None,
    NO_GUARANTEE,
    Reason(ReasonCode.CLASS_REFUTED, "no hypothesis of the class explains the observations"),
)


_COMPLETE, _SETTLED = (Result._fields.index(name) for name in ("complete", "settled"))
SECONDS_BETWEEN_LOOKS = 0.005
"""A search with a deadline examines about so long between two looks at the clock."""


class EnumeratedOracle:
    """Implements `oracles.base.Oracle` for an enumerated family.

    Works in float64 whatever the host program's JAX configuration. Its first `observe` and `bound` compile,
    which takes about a second; later ones do not. States, bounds and snapshots are the same on any number of devices
    of a kind.

    Args:
        family: the hypothesis class.
        bound: what to bound harm by.
        devices: where to compute; by default this process's CPU devices. The hypotheses are shared out among
            those that can share them evenly.
    """

    needs_current = False

    def __init__(self, family: EnumeratedFamily, bound: BoundSpec, devices: Sequence[jax.Device] | None = None) -> None:
        self.row_length = family.row_length
        log_prior = family.log_prior()
        self.guarantee: Guarantee = guarantee(bound, family.assumptions, float(log_prior.min()))
        self._family = family
        self._blocks = Blocks(family.size, family.width, cpu() if devices is None else devices)
        constant = bool((log_prior == log_prior[0]).all())
        mass = float(log_prior[0]) + math.log(family.size) if constant else float(np.logaddexp.reduce(log_prior))
        # A log prior is a sum of at most 27 logarithms, each off by a few roundings.
        self._prior_slack = 32 * EPSILON * (1.0 + abs(float(log_prior.min())))
        self._kernels = kernels(family, bound, self._blocks, mass, self._prior_slack)
        self._running = isinstance(bound, PlausibleBound | RatioBound) and bound.running
        self._log_prior = self._blocks.put(log_prior[:1] if constant else log_prior, whole=constant)
        by_row: dict[str, jax.Array] = {}
        rest: dict[str, jax.Array] = {}
        for array_name, array in family.arrays.items():
            kept = by_row if array_name in family.row_arrays else rest
            kept[array_name] = self._blocks.put(array, whole=array_name not in family.row_arrays)
        self._arrays = (by_row, rest)
        self.unhurried = self._blocks.count == 1 or not isinstance(bound, PlausibleBound | RatioBound)
        self._sums = isinstance(family, SufficientStatistics) and not self._running
        self._initial: EnumeratedState | None = None

    def encode(self, features: Sequence[float], category: str | int | None) -> Row:
        """Encode one input as float64[F]; see `hypotheses.base.Family.encode`."""
        return self._family.encode(features, category)

    def init(self) -> EnumeratedState:
        """The prior."""
        if self._initial is None:
            self._initial = self._first()
        return self._initial

    def _first(self) -> EnumeratedState:
        if self._sums and isinstance(self._family, SufficientStatistics):
            nothing = np.zeros(self._family.statistics_length)
            return self._state(self._put_sums(nothing, nothing, np.zeros(())), 0)
        log_weight = self._family.log_prior()
        account = np.array([log_weight.max(), log_weight.min(), self._prior_slack, 0.0])
        state = self._state(self._posterior(log_weight, account, None), 0)
        if not self._running:
            return state
        # The prior's own set counts too: the guarantee holds at time 0.
        return self._state(state.posterior._replace(members=state.members), 0)

    def observe(self, state: EnumeratedState, rows: Rows, outcomes: npt.NDArray[np.float64]) -> EnumeratedState:
        """Condition on N observations in order; see `oracles.base.Oracle.observe`.

        :raises ValueError: if the shapes are not [N, F] and [N].
        """
        rows, outcomes = self._rows(rows), np.asarray(outcomes, np.float64)
        if outcomes.shape != (len(rows),):
            raise ValueError(f"{len(rows)} rows need as many outcomes, got shape {outcomes.shape}")
        if not len(rows):
            return state
        evidence = state.evidence
        with jax.enable_x64(True):
            for start in range(0, len(rows), MAX_BATCH):
                batch = slice(start, start + MAX_BATCH)
                observations = fill(rows[batch], outcomes[batch])
                if isinstance(evidence, Sums):
                    evidence = self._kernels.add(evidence, observations)
                else:
                    evidence = self._kernels.condition(self._arrays, self._log_prior, evidence, observations)
        return self._state(evidence, state.observations + len(rows))

    def bound(self, state: EnumeratedState, rows: Rows, deadline: float | None = None) -> list[HarmBound]:
        """Bound the probability of harm of A inputs; see `oracles.base.Oracle.bound`.

        :raises ValueError: if the shape is not [A, F].
        """
        rows = self._rows(rows)
        answers = state.answers
        if answers.failure is not None:
            return [answers.failure] * len(rows)
        found: list[HarmBound] = []
        with jax.enable_x64(True):
            for start in range(0, len(rows), MAX_BATCH):
                batch = rows[start : start + MAX_BATCH]
                inputs = fill(batch)
                if deadline is None or self.unhurried:
                    results = np.asarray(self._kernels.finish(self._arrays, answers.derived, inputs))
                else:
                    results = self._search_until(deadline, state, inputs, len(batch))
                found += [self._harm_bound(state, Result(*line)) for line in results[: len(batch)].tolist()]
        return found

    def _search_until(
        self, deadline: float, state: EnumeratedState, inputs: npt.NDArray[np.float64], number: int
    ) -> npt.NDArray[np.float64]:
        """The results at the deadline, or when nothing is left to do."""
        progress: Progress = self._kernels.start()
        budget = 1
        while True:
            began = time.monotonic()
            progress = self._kernels.advance(self._arrays, state.answers.derived, inputs, progress, np.int32(budget))
            results = np.asarray(progress.results)
            done = results[:number, _COMPLETE].all() and results[:number, _SETTLED].all()
            now = time.monotonic()
            if done or now >= deadline:
                return results
            # As many blocks as fit between two looks, by the speed of the last ones.
            seconds = min(SECONDS_BETWEEN_LOOKS, 0.5 * (deadline - now))
            budget = max(1, min(int(budget * seconds / max(now - began, 1e-6)), 2 * budget))

    def count(self, state: EnumeratedState) -> int:
        """Number of observations in the state."""
        return state.observations

    def refuted(self, state: EnumeratedState) -> bool:
        """True if no hypothesis is plausible any more."""
        return state.answers.failure is _CLASS_REFUTED

    def failed(self, state: EnumeratedState) -> bool:
        """True if something that is not a number was observed."""
        return state.answers.failure is _NOT_FINITE

    def summary(self, state: EnumeratedState, top: int = 5) -> PosteriorSummary:
        """The posterior at a glance; without masses if every hypothesis is impossible."""
        log_weight = np.asarray(state.posterior.log_weight)
        entropy: float | None = None
        masses: dict[str, float] = {}
        if math.isfinite(peak := log_weight.max()):
            log_posterior = (log_weight - peak) - state.log_total
            mass = np.exp(log_posterior)
            entropy = max(0.0, -float(np.dot(mass[mass > 0], log_posterior[mass > 0])))
            masses = {self._family.describe(i)[0]: float(mass[i]) for i in _largest_places(log_weight, top)}
        return PosteriorSummary(
            revision=state.observations,
            refuted=self.refuted(state),
            class_size=self._family.size,
            plausible=None if state.members is None else int(np.count_nonzero(state.members)),
            entropy=entropy,
            top=masses,
        )

    def detail(self, state: EnumeratedState, limit: int) -> PosteriorDetail:
        """The most probable hypotheses, ties in the order of the class; none if an observation was no number."""
        log_weight = np.asarray(state.posterior.log_weight)
        if self.failed(state) or not math.isfinite(peak := log_weight.max()):
            return PosteriorDetail()
        members = None if state.members is None else np.asarray(state.members)

        def told(place: int) -> Hypothesis:
            name, parameters = self._family.describe(place)
            log_posterior = float((log_weight[place] - peak) - state.log_total)
            return Hypothesis(name, parameters, log_posterior, None if members is None else bool(members[place]))

        return PosteriorDetail(tuple(map(told, _largest_places(log_weight, limit))))

    def dump(self, state: EnumeratedState) -> dict[str, npt.NDArray[Any]]:
        """What the observations determine, as arrays, and `count`; what is derived from them is not stored."""
        kept = {name: np.asarray(value) for name, value in state.evidence._asdict().items() if value is not None}
        return kept | {"count": np.asarray(state.observations, np.int64)}

    def load(self, arrays: dict[str, npt.NDArray[Any]]) -> EnumeratedState:
        """The state that `dump` wrote.

        :raises SnapshotInvalid: if names, shapes or types do not fit this class, or the numbers contradict each other.
        """
        pattern = self.dump(self.init())
        if arrays.keys() != pattern.keys():
            raise SnapshotInvalid(f"a snapshot of this class holds {sorted(pattern)}, got {sorted(arrays)}")
        for name, expected in pattern.items():
            found = arrays[name]
            if found.dtype != expected.dtype or found.shape != expected.shape:
                raise SnapshotInvalid(
                    f"{name} must be {expected.dtype}{list(expected.shape)}, got {found.dtype}{list(found.shape)}"
                )
        if not (arrays["count"] >= 0 and _consistent(arrays)):
            raise SnapshotInvalid("the snapshot's numbers contradict each other")
        if self._sums:
            evidence: Posterior | Sums = self._put_sums(arrays["sums"], arrays["corrections"], arrays["failed"])
        else:
            evidence = self._posterior(arrays["log_weight"], arrays["account"], arrays.get("members"))
        return self._state(evidence, int(arrays["count"]))

    def _state(self, evidence: Posterior | Sums, observations: int) -> EnumeratedState:
        return EnumeratedState(evidence, observations, self._answers)

    def _answers(self, evidence: Posterior | Sums) -> Answers:
        with jax.enable_x64(True):
            if isinstance(evidence, Sums):
                posterior = self._kernels.posterior(self._arrays, self._log_prior, evidence)
            else:
                posterior = evidence
            derived, log_total = self._kernels.derive(self._log_prior, posterior)
        total, refuted = np.asarray(log_total).tolist()
        failed = bool(Account(*np.asarray(posterior.account)).failed)
        failure = _NOT_FINITE if failed else _CLASS_REFUTED if refuted else None
        if posterior.members is not None:
            derived = derived._replace(members=posterior.members)
        return Answers(posterior, derived, total, failure)

    def _put_sums(self, *arrays: npt.NDArray[np.float64]) -> Sums:
        return Sums(*(self._blocks.put(array, whole=True) for array in arrays))

    def _posterior(
        self,
        log_weight: npt.NDArray[np.float64],
        account: npt.NDArray[np.float64],
        members: npt.NDArray[np.bool_] | None,
    ) -> Posterior:
        return Posterior(
            self._blocks.put(log_weight, whole=False),
            self._blocks.put(account, whole=True),
            None if members is None else self._blocks.put(members, whole=False),
        )

    def _rows(self, rows: Rows) -> Rows:
        rows = np.asarray(rows, np.float64)
        if rows.ndim != 2 or rows.shape[1] != self.row_length:
            raise ValueError(f"rows must be float64[A, {self.row_length}], got shape {rows.shape}")
        return rows

    def _harm_bound(self, state: EnumeratedState, result: Result) -> HarmBound:
        if not result.usable:
            return _NOT_FINITE
        search = Search(truncated=not result.complete, scanned=result.scanned)
        predictive = result.predictive if result.settled else None
        if not result.found:
            return HarmBound(result.value, predictive, None, self.guarantee, search=search)
        place = int(result.place)
        log_weight = self._blocks.entry(state.posterior.log_weight, place)
        peak = np.asarray(state.posterior.account)[0]
        name, parameters = self._family.describe(place)
        cautious = CautiousHypothesis(name, parameters, result.harm, float((log_weight - peak) - state.log_total))
        return HarmBound(result.value, predictive, cautious, self.guarantee, search=search)


def _consistent(arrays: dict[str, npt.NDArray[Any]]) -> bool:
    """Whether the numbers of a snapshot can belong together."""
    if "sums" in arrays:
        numbers = np.concatenate([arrays["sums"], arrays["corrections"]])
        return bool(np.isfinite(numbers).all() and arrays["failed"] in (0.0, 1.0))
    account = Account(*arrays["account"])
    consistent = account.slack >= 0.0 and account.failed in (0.0, 1.0)
    return bool(consistent and arrays["log_weight"].max() == account.peak)


def _largest_places(values: npt.NDArray[np.float64], count: int) -> list[int]:
    """Indices of the largest finite values, largest first, ties by index."""
    count = min(count, len(values))
    if count < 1:
        return []
    cut = np.partition(values, -count)[-count]
    above, tied = np.flatnonzero(values > cut), np.flatnonzero(values == cut)
    places = np.concatenate([above, tied[: count - len(above)]])
    places = places[np.isfinite(values[places])]
    return [int(place) for place in places[np.lexsort((places, -values[places]))]]
