"""What a continuous family with a closed-form posterior provides to the conjugate oracle."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any, Protocol

import jax
import numpy.typing as npt

from guardrail.hypotheses.base import Arrays, Family, Row


class ConjugateFamily(Family, Protocol):
    """A continuous class with a closed-form posterior.

    `update`, `prepare`, `evaluate`, `accepts` and `accepts_outcome` are pure JAX functions under
    64-bit mode; `delta` is None for the predictive bound.
    """

    parameter_names: tuple[str, ...]
    """What the parameters of `evaluate` are called."""
    trace_key: Hashable
    """All that the pure functions depend on: families with equal keys share compiled code."""
    source_note: str
    """What a guarantee adds to the source of the bound."""

    def check_rule(self, delta: float | None, running: bool) -> None:
        """Refuse a rule that the family cannot keep.

        :raises ValueError: if so.
        """
        ...

    def initial(self) -> dict[str, npt.NDArray[Any]]:
        """The state before any observation."""
        ...

    def accepts(self, row: jax.Array) -> jax.Array:
        """bool[]: whether a row is an input of the class."""
        ...

    def accepts_outcome(self, outcome: jax.Array) -> jax.Array:
        """bool[]: whether a number is an outcome of the class."""
        ...

    def update(
        self, delta: float | None, running: bool, arrays: Arrays, row: jax.Array, outcome: jax.Array
    ) -> dict[str, jax.Array]:
        """The state after one observation."""
        ...

    def prepare(self, delta: float | None, arrays: Arrays) -> Any:
        """What all checks of a state share; has `refuted` as an item or attribute."""
        ...

    def evaluate(
        self, delta: float | None, arrays: Arrays, prepared: Any, row: jax.Array
    ) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
        """Bound, predictive harm, refuted (bool[]), parameters float64[P]; NaN where there is no bound."""
        ...

    def hypothesis_name(self, row: Row) -> str:
        """How the hypothesis behind the bound of a row is called."""
        ...

    def top(self, arrays: Mapping[str, npt.NDArray[Any]], prepared: Any, count: int) -> dict[str, float]:
        """A few posterior means by name."""
        ...

    def names_of_parameters(self, count: int) -> list[str]:
        """How the first `count` parameters of the class are called, in the order of the policy."""
        ...

    def parameters(self, delta: float | None, arrays: Arrays, prepared: Any) -> jax.Array:
        """float64[N, 4]: of each parameter the posterior mean and standard deviation, and what no plausible value is
        below or above; the last two mean nothing without a level, or if the class is refuted."""
        ...

    def check_arrays(self, arrays: Mapping[str, npt.NDArray[Any]], count: int) -> str | None:
        """What is wrong with a loaded state; None if it is possible."""
        ...
