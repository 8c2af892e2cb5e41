"""What a program says before any data: runs in its process, for `guardrail policy lint`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from guardrail.hypotheses.base import Row
    from guardrail.programs.messages import Arrays


class Drawable(Protocol):
    """A program whose prior can be drawn from."""

    def examples(self) -> npt.NDArray[np.float64]:
        """float64[E, F]: the policy's example inputs."""
        ...

    def prior_predictive(self, row: Row, draws: int) -> tuple[Any, Any, Any]:
        """Outcomes, their log-likelihoods and harms of draws from the prior at one input, float64[draws] each."""
        ...


DRAWS = 1_000
"""Hypotheses whose outcomes are looked at, for each example input."""


def check(family: Drawable) -> tuple[dict[str, Any], Arrays]:
    """Outcomes, log-likelihoods and harms of draws from the prior, at the policy's example inputs.

    Returns:
        Nothing, and the arrays `outcomes`, `log_likelihoods`, `harms`: float64[E, DRAWS].
    """
    numbers = [family.prior_predictive(row, DRAWS) for row in family.examples()]
    names = ("outcomes", "log_likelihoods", "harms")
    return {}, {name: np.stack([np.asarray(n[i], np.float64) for n in numbers]) for i, name in enumerate(names)}
