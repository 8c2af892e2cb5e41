"""A posterior over an enumerated class, and what all its checks share."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

    import jax

    from guardrail.domain import HarmBound
    from guardrail.oracles.posteriors import Posterior, Sums
    from guardrail.oracles.search import Derived


class Answers(NamedTuple):
    """What all checks of one posterior share.

    Attributes:
        posterior: what the observations determine.
        derived: see `search.Derived`.
        log_total: log of the sum of exp(log_weight - peak).
        failure: why every bound is 1; None if there are bounds.
    """

    posterior: Posterior
    derived: Derived
    log_total: float
    failure: HarmBound | None


class EnumeratedState:
    """Immutable. What all its checks share is computed when the first one asks, so that a log is read without it.

    Attributes:
        evidence: what the observations determine: their sums if the family has such and sets are not intersected,
            else the posterior.
        observations: how many there were.
    """

    def __init__(
        self, evidence: Posterior | Sums, observations: int, answers: Callable[[Posterior | Sums], Answers]
    ) -> None:
        self.evidence, self.observations, self._answer = evidence, observations, answers

    @functools.cached_property
    def answers(self) -> Answers:
        """What all checks share."""
        return self._answer(self.evidence)

    @property
    def posterior(self) -> Posterior:
        """Log weights and what belongs to them."""
        return self.answers.posterior

    @property
    def members(self) -> jax.Array | None:
        """bool[H], the set over which harm is maximised; None if the bound has none."""
        return self.answers.derived.members

    @property
    def log_total(self) -> float:
        """Log of the sum of exp(log_weight - peak)."""
        return self.answers.log_total
