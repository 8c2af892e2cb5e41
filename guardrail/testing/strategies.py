"""Hypothesis strategies for finite classes: priors, posteriors and harms, with the awkward cases in them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from hypothesis import strategies as st

from guardrail.testing.reference import Floats, posterior

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True)
class FiniteState:
    """One moment of a finite class.

    Attributes:
        log_prior: float64[H], normalised.
        log_posterior: float64[H], normalised; -inf where refuted.
        harm: float64[H, A], probabilities.
    """

    log_prior: Floats
    log_posterior: Floats
    harm: Floats


@st.composite
def finite_states(
    draw: st.DrawFn, sizes: Sequence[int] = (1, 2, 5, 12), actions: int = 3, uniform: bool = False
) -> FiniteState:
    """States of finite classes, with exact ties, refuted hypotheses and harms of 0 and 1.

    Args:
        draw: given by hypothesis.
        sizes: numbers of hypotheses to choose from; few, because each is compiled for.
        actions: A, the number of actions.
        uniform: whether the prior is uniform; otherwise it may be very skewed.
    """
    size = draw(st.sampled_from(sizes))

    def row(elements: st.SearchStrategy[float]) -> Floats:
        return np.array(draw(st.lists(elements, min_size=size, max_size=size)), np.float64)

    # Few distinct values make exact ties likely; floats in general make them rare.
    levels = st.sampled_from([0.0, -0.5, -1.0, -3.0, -8.0])
    spread = st.floats(-30.0, 0.0) if draw(st.booleans()) else levels
    log_weights = np.zeros(size) if uniform else row(spread)
    log_likelihood = row(st.one_of(spread, st.just(-np.inf)))
    log_likelihood[draw(st.integers(0, size - 1))] = 0.0
    # XLA takes subnormal numbers for 0, which is no matter of the mathematics.
    probabilities = st.sampled_from([0.0, 1.0, 0.25]) | st.floats(0.0, 1.0, allow_subnormal=False)
    harm = np.stack([row(probabilities) for _ in range(actions)], axis=1)
    log_prior = posterior(log_weights, np.zeros(size))
    return FiniteState(log_prior, posterior(log_prior, log_likelihood), harm)
