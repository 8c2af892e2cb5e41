"""What an episode needs of a class of hypotheses: a posterior to look at and to update."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol, TypeAlias

import jax

State: TypeAlias = Any
"""What is known after some observations: a pytree of arrays."""
Data: TypeAlias = Any
"""What does not change while observations arrive (prior, tables): a pytree of arrays."""


class Look(NamedTuple):
    """What is seen at one check.

    Attributes:
        bounds: float64[A], harm bound of each action.
        mean: float64[A], expected outcome under the posterior.
        variance: float64[A], its variance (of a Boolean outcome it is not used).
        empty: bool[], whether no hypothesis is left.
        best_log_likelihood: float64[], of the best member; inf where it is not known, which refutes nothing.
        state: with the check in it (a running intersection).
    """

    bounds: jax.Array
    mean: jax.Array
    variance: jax.Array
    empty: jax.Array
    best_log_likelihood: jax.Array
    state: State


class Model(Protocol):
    """A class of hypotheses under one bound. Pure JAX functions of one run, called under 64-bit mode.

    Attributes:
        actions: A.
        noise_sd: standard deviation of a Gaussian outcome; None for a Boolean one.
        harm_above: a Gaussian outcome above it is harm; a Boolean outcome is harm when true.
        log_delta: log of the level.
    """

    actions: int
    noise_sd: float | None
    harm_above: float
    log_delta: float

    def init(self, data: Data) -> State:
        """Before any observation."""
        ...

    def look(self, data: Data, state: State, alpha: jax.Array) -> Look:
        """Check every action.

        Args:
            alpha: float64[], level of a plausible set.
        """
        ...

    def update(
        self, data: Data, look: Look, action: jax.Array, outcome: jax.Array, times: jax.Array
    ) -> tuple[State, jax.Array]:
        """Condition on an outcome, and the log of what the posterior predictive gave it, float64[].

        Args:
            look: the check before it.
            times: float64[], how often the outcome is reported: 0 (withheld, or nothing was done), 1, or 2
                (a report counted twice).
        """
        ...
