"""What an oracle must do: keep the posterior over one hypothesis class and bound harm by it.

An oracle is functional: `observe` returns a new state and never changes the old one. The
state after N observations is the same, bit for bit, however they were cut into batches.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from guardrail.domain import Guarantee, HarmBound, PosteriorDetail, PosteriorSummary

Rows: TypeAlias = npt.NDArray[np.float64]
"""float64[N, F]: N encoded inputs."""

State: TypeAlias = Any
"""Immutable, opaque to everyone but the oracle that made it."""

MAX_BATCH = 64
"""Most inputs that one kernel call takes; longer batches are cut."""


class Oracle(Protocol):
    """Posterior and maximisation for one hypothesis class under one bound."""

    row_length: int
    """F, the length of an encoded input."""
    guarantee: Guarantee
    """What every bound of this oracle promises while the class is not refuted."""
    needs_current: bool
    """True if outcomes depend on earlier ones: then a bound from an older posterior is unsound, else only looser."""
    unhurried: bool
    """True if `bound` is always so fast, or so unable to stop, that it takes no notice of deadlines."""

    def encode(self, features: Sequence[float], category: str | int | None) -> npt.NDArray[np.float64]:
        """Encode one input as float64[F] (see `hypotheses.base.Family.encode`).

        :raises InvalidInput: with reason UNKNOWN_CATEGORY if the category is not of the class.
        """
        ...

    def init(self) -> State:
        """The state before any observation: the prior."""
        ...

    def observe(self, state: State, rows: Rows, outcomes: npt.NDArray[np.float64]) -> State:
        """Condition on N observations in order.

        Args:
            state: the state before; unchanged.
            rows: float64[N, F], encoded inputs.
            outcomes: float64[N], outcomes in the outcome's unit; 0 or 1 if Boolean.
        """
        ...

    def bound(self, state: State, rows: Rows, deadline: float | None = None) -> list[HarmBound]:
        """Bound the probability of harm of A inputs in one kernel call per MAX_BATCH of them.

        Never raises for numerical reasons: whatever is not a number becomes a bound of 1 with a
        `failure` (NUMERICAL_FAILURE), and a refuted class a bound of 1 with CLASS_REFUTED.

        Args:
            state: any state of this oracle.
            rows: float64[A, F], encoded inputs.
            deadline: of `time.monotonic()`, for all the inputs together. A search that reaches it gives the best
                sound bound so far, marked as truncated. None searches to the end.
        """
        ...

    def count(self, state: State) -> int:
        """Number of observations in the state."""
        ...

    def refuted(self, state: State) -> bool:
        """True if no hypothesis is plausible any more: every check must be rejected."""
        ...

    def failed(self, state: State) -> bool:
        """True if something that is not a number was observed: every check must be rejected."""
        ...

    def summary(self, state: State, top: int = 5) -> PosteriorSummary:
        """The posterior at a glance, with the `top` most probable hypotheses."""
        ...

    def detail(self, state: State, limit: int) -> PosteriorDetail:
        """At most `limit` hypotheses, or parameters of a continuous class, in full: what bounds of the state rest on.

        Whether one is plausible is what `bound` goes by. Of impossible hypotheses nothing is told, nor of a state
        whose numbers are not to be trusted.
        """
        ...

    def dump(self, state: State) -> dict[str, npt.NDArray[Any]]:
        """The state as named arrays from which `load` rebuilds it exactly."""
        ...

    def load(self, arrays: dict[str, npt.NDArray[Any]]) -> State:
        """The state that `dump` wrote.

        :raises SnapshotInvalid: if names, shapes or types do not fit this class.
        """
        ...
