"""The oracle over a finite class: every hypothesis's posterior, exactly, one array entry each."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import numpy as np
import numpy.typing as npt

from guardrail.domain import (
    NO_GUARANTEE,
    CautiousHypothesis,
    Guarantee,
    HarmBound,
    PosteriorSummary,
    Reason,
    ReasonCode,
)
from guardrail.errors import SnapshotInvalid
from guardrail.hypotheses.product_grid import on_cpu
from guardrail.oracles.base import MAX_BATCH, Rows
from guardrail.oracles.enumerated_kernels import EPSILON, Account, Posterior, fill, kernels
from guardrail.oracles.guarantees import guarantee
from guardrail.policy.schema import BoundSpec, PlausibleBound, RatioBound

if TYPE_CHECKING:
    from collections.abc import Sequence

    from guardrail.hypotheses.base import EnumeratedFamily, Row

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


class EnumeratedState(NamedTuple):
    """Posterior after some observations, and what all its checks share.

    Attributes:
        posterior: what the observations determine.
        belief: see `enumerated_kernels.Derived`.
        members: bool[H], the set over which harm is maximised; None if the bound has none.
        log_total: log of the sum of exp(log_weight - peak).
        failure: why every bound is 1; None if there are bounds.
        observations: how many there were.
    """

    posterior: Posterior
    belief: jax.Array
    members: jax.Array | None
    log_total: float
    failure: HarmBound | None
    observations: int


class EnumeratedOracle:
    """Implements `oracles.base.Oracle` for an enumerated family.

    Works in float64 on the CPU whatever the host program's JAX configuration. Its first `observe` and `bound`
    compile, which takes about a second; later ones do not.

    Args:
        family: the hypothesis class.
        bound: what to bound harm by.
    """

    needs_current = False

    def __init__(self, family: EnumeratedFamily, bound: BoundSpec) -> None:
        self.row_length = family.row_length
        log_prior = family.log_prior()
        self.guarantee: Guarantee = guarantee(bound, family.assumptions, float(log_prior.min()))
        self._family, self._kernels = family, kernels(family, bound)
        self._running = isinstance(bound, PlausibleBound | RatioBound) and bound.running
        constant = bool((log_prior == log_prior[0]).all())
        self._log_prior = on_cpu(log_prior[:1] if constant else log_prior)
        self._initial: EnumeratedState | None = None

    def encode(self, features: Sequence[float], category: str | int | None) -> Row:
        """Encode one input as float64[F]; see `hypotheses.base.Family.encode`."""
        return self._family.encode(features, category)

    def init(self) -> EnumeratedState:
        """The prior."""
        if self._initial is None:
            log_weight = self._family.log_prior()
            largest, smallest = log_weight.max(), log_weight.min()
            # A log prior is a sum of at most 22 logarithms, each off by a few roundings.
            account = [largest, smallest, 32 * EPSILON * (1.0 + abs(smallest)), 0.0]
            state = self._state(_posterior(log_weight, np.array(account), None), 0)
            if self._running:
                # The prior's own set counts too: the guarantee holds at time 0.
                state = self._state(state.posterior._replace(members=state.members), 0)
            self._initial = state
        return self._initial

    def observe(self, state: EnumeratedState, rows: Rows, outcomes: npt.NDArray[np.float64]) -> EnumeratedState:
        """Condition on N observations in order; see `oracles.base.Oracle.observe`.

        :raises ValueError: if the shapes are not [N, F] and [N].
        """
        rows, outcomes = self._rows(rows), np.asarray(outcomes, np.float64)
        if outcomes.shape != (len(rows),):
            raise ValueError(f"{len(rows)} rows need as many outcomes, got shape {outcomes.shape}")
        if not len(rows):
            return state
        posterior = state.posterior
        with jax.enable_x64(True):
            for start in range(0, len(rows), MAX_BATCH):
                batch = slice(start, start + MAX_BATCH)
                posterior = self._kernels.condition(
                    self._family.arrays, self._log_prior, posterior, fill(rows[batch], outcomes[batch])
                )
        return self._state(posterior, state.observations + len(rows))

    def bound(self, state: EnumeratedState, rows: Rows) -> list[HarmBound]:
        """Bound the probability of harm of A inputs; see `oracles.base.Oracle.bound`.

        :raises ValueError: if the shape is not [A, F].
        """
        rows = self._rows(rows)
        if state.failure is not None:
            return [state.failure] * len(rows)
        found: list[HarmBound] = []
        with jax.enable_x64(True):
            for start in range(0, len(rows), MAX_BATCH):
                batch = rows[start : start + MAX_BATCH]
                packed = self._kernels.bound(self._family.arrays, state.belief, state.members, fill(batch))
                found += [self._harm_bound(state, numbers) for numbers in np.asarray(packed)[: len(batch)].tolist()]
        return found

    def count(self, state: EnumeratedState) -> int:
        """Number of observations in the state."""
        return state.observations

    def refuted(self, state: EnumeratedState) -> bool:
        """True if no hypothesis is plausible any more."""
        return state.failure is _CLASS_REFUTED

    def failed(self, state: EnumeratedState) -> bool:
        """True if something that is not a number was observed."""
        return state.failure is _NOT_FINITE

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

    def dump(self, state: EnumeratedState) -> dict[str, npt.NDArray[Any]]:
        """The posterior's arrays and `count`; what is derived from them is not stored."""
        arrays = {name: np.asarray(value) for name, value in state.posterior._asdict().items() if value is not None}
        return arrays | {"count": np.asarray(state.observations, np.int64)}

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
        account = Account(*arrays["account"])
        consistent = account.slack >= 0.0 and account.failed in (0.0, 1.0) and arrays["count"] >= 0
        if not (consistent and arrays["log_weight"].max() == account.peak):
            raise SnapshotInvalid("the snapshot's numbers contradict each other")
        posterior = _posterior(arrays["log_weight"], arrays["account"], arrays.get("members"))
        return self._state(posterior, int(arrays["count"]))

    def _state(self, posterior: Posterior, observations: int) -> EnumeratedState:
        with jax.enable_x64(True):
            belief, members, log_total = self._kernels.derive(self._log_prior, posterior)
        total, refuted = np.asarray(log_total).tolist()
        failed = bool(Account(*np.asarray(posterior.account)).failed)
        failure = _NOT_FINITE if failed else _CLASS_REFUTED if refuted else None
        members = members if posterior.members is None else posterior.members
        return EnumeratedState(posterior, belief, members, total, failure, observations)

    def _rows(self, rows: Rows) -> Rows:
        rows = np.asarray(rows, np.float64)
        if rows.ndim != 2 or rows.shape[1] != self.row_length:
            raise ValueError(f"rows must be float64[A, {self.row_length}], got shape {rows.shape}")
        return rows

    def _harm_bound(self, state: EnumeratedState, numbers: list[float]) -> HarmBound:
        value, predictive, harm, index, usable = numbers
        if not usable:
            return _NOT_FINITE
        place = int(index)
        log_weight, peak = np.asarray(state.posterior.log_weight)[place], np.asarray(state.posterior.account)[0]
        name, parameters = self._family.describe(place)
        cautious = CautiousHypothesis(name, parameters, harm, float((log_weight - peak) - state.log_total))
        return HarmBound(value, predictive, cautious, self.guarantee)


def _posterior(
    log_weight: npt.NDArray[np.float64], account: npt.NDArray[np.float64], members: npt.NDArray[np.bool_] | None
) -> Posterior:
    return Posterior(on_cpu(log_weight), on_cpu(account), None if members is None else on_cpu(members))


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
