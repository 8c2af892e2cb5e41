"""A finite class: every hypothesis is enumerated, with the service's own likelihoods, harms and bounds."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.special import logsumexp

from guardrail import bounds
from simulations.validation.catalogue import KERNELS, View
from simulations.validation.model import Look

if TYPE_CHECKING:
    from simulations.validation.worlds import FiniteWorld


class FiniteData(NamedTuple):
    """What does not change while observations arrive.

    Attributes:
        log_prior: float64[H].
        harm: float64[H, A], probability of harm.
        mean: float64[H, A], mean of the outcome.
        rows: float64[A, F], the encoded input of each action.
        arrays: of the family.
    """

    log_prior: jax.Array
    harm: jax.Array
    mean: jax.Array
    rows: jax.Array
    arrays: dict[str, jax.Array]


class FiniteState(NamedTuple):
    """What is known after some observations.

    Attributes:
        log_likelihood: float64[H], of everything reported so far.
        log_evidence: float64[], log sum of prior * likelihood.
        members: bool[H], running intersection of the sets; bool[0] if the bound keeps none.
    """

    log_likelihood: jax.Array
    log_evidence: jax.Array
    members: jax.Array


class FiniteModel:
    """A finite class under one bound; see `model.Model`. Large arrays are data, so that programs do not hold them."""

    def __init__(self, world: FiniteWorld, kernel: str, delta: float) -> None:
        self._family, self._delta = world.family, delta
        self._kernel, self._running = KERNELS[kernel], kernel.endswith("-running")
        self.actions, self.noise_sd, self.harm_above = world.actions, world.noise_sd, world.harm_above
        self.log_delta = math.log(delta)

    def init(self, data: FiniteData) -> FiniteState:
        """Before any observation."""
        size = data.log_prior.shape
        return FiniteState(jnp.zeros(size), jnp.zeros(()), jnp.ones(size if self._running else (0,), bool))

    def look(self, data: FiniteData, state: FiniteState, alpha: jax.Array) -> Look:
        """Check every action."""
        log_posterior = data.log_prior + state.log_likelihood - state.log_evidence
        view = View(log_posterior, data.log_prior, state.log_likelihood, data.harm, alpha, self._delta, state.members)
        found, members = self._kernel(view)
        posterior = jnp.exp(log_posterior)
        mean = posterior @ data.mean
        noise = 0.0 if self.noise_sd is None else self.noise_sd**2
        variance = noise + jnp.maximum(posterior @ data.mean**2 - mean**2, 0.0)
        return Look(
            bounds=found,
            mean=mean,
            variance=variance,
            empty=bounds.is_refuted(members) if self._running else jnp.zeros((), bool),
            best_log_likelihood=jnp.max(state.log_likelihood),
            state=state._replace(members=members),
        )

    def update(
        self, data: FiniteData, look: Look, action: jax.Array, outcome: jax.Array, times: jax.Array
    ) -> tuple[FiniteState, jax.Array]:
        """Condition on an outcome."""
        state: FiniteState = look.state
        terms = self._family.log_likelihood(data.arrays, data.rows[action], outcome)
        # Not terms * times alone: an impossible outcome has the log -inf, and nothing was reported when times is 0.
        log_likelihood = state.log_likelihood + jnp.where(times > 0.0, times * terms, 0.0)
        log_evidence = logsumexp(data.log_prior + log_likelihood)
        new = FiniteState(log_likelihood, log_evidence, state.members)
        return new, log_evidence - state.log_evidence
