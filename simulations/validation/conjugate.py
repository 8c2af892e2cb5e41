"""A continuous class with a closed-form posterior: the families that the service uses, one oracle step at a time."""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp

from guardrail.bounds.ellipsoid import predictive_moments
from guardrail.domain import IntervalHarm
from guardrail.hypotheses.gaussian_harm import interval_harm
from simulations.validation.model import Look

if TYPE_CHECKING:
    from simulations.validation.worlds import ConjugateWorld

CONJUGATE_KERNELS = ("ratio", "ratio-running", "predictive", "mle", "map", "credible")


class ConjugateModel:
    """A continuous class under one bound; see `model.Model`.

    A bound that the service would not give (NaN, refuted) is 1, as in its oracle. Reports count 0 or 1 times.
    """

    def __init__(self, world: ConjugateWorld, prior: str, kernel: str, delta: float) -> None:
        if kernel not in CONJUGATE_KERNELS:
            raise ValueError(f"a continuous class has the bounds {', '.join(CONJUGATE_KERNELS)}, not {kernel}")
        if kernel == ("mle" if world.noise_sd is not None else "map") or (kernel == "credible" and not world.noise_sd):
            raise ValueError(f"{world.title} has no bound {kernel}: mle is of a rate, map and credible of weights")
        self._family, self._rows, self._event = world.families[prior], world.rows, world.event
        self._kernel, self._credible_level = kernel, 1.0 - delta
        self._level = delta if kernel.startswith("ratio") else None
        self._running = kernel == "ratio-running"
        self._family.check_rule(self._level, self._running)
        self.actions, self.noise_sd, self.harm_above = world.actions, world.noise_sd, world.harm_above
        self.log_delta = math.log(delta)

    def init(self, data: None) -> dict[str, jax.Array]:
        """Before any observation. There is no data: the family holds its prior."""
        del data
        return {name: jnp.asarray(value) for name, value in self._family.initial().items()}

    def look(self, data: None, state: dict[str, jax.Array], alpha: jax.Array) -> Look:
        """Check every action."""
        del data, alpha
        prepared = self._family.prepare(self._level, state)

        def check(row: jax.Array) -> tuple[jax.Array, ...]:
            value, _, refuted, parameters = self._family.evaluate(self._level, state, prepared, row)
            mean, spread = self._moments(prepared, row, parameters)
            bound = self._bound(value, mean, spread, parameters)
            usable = (bound >= 0.0) & (bound <= 1.0) & ~refuted
            return jnp.where(usable, bound, 1.0), mean, spread, refuted

        found, mean, spread, refuted = jax.vmap(check)(jnp.asarray(self._rows))
        noise = 0.0 if self.noise_sd is None else self.noise_sd**2
        return Look(found, mean, noise + spread**2, jnp.any(refuted), jnp.asarray(jnp.inf), state)

    def update(
        self, data: None, look: Look, action: jax.Array, outcome: jax.Array, times: jax.Array
    ) -> tuple[dict[str, jax.Array], jax.Array]:
        """Condition on an outcome."""
        del data
        state: dict[str, jax.Array] = look.state
        row = jnp.asarray(self._rows)[action]
        new = self._family.update(self._level, self._running, state, row, outcome)
        kept = {name: jnp.where(times > 0.0, new[name], state[name]) for name in state}
        mean, variance = look.mean[action], look.variance[action]
        if self.noise_sd is None:
            log_forecast = jnp.log(jnp.where(outcome == 1.0, mean, 1.0 - mean))
        else:
            log_forecast = -0.5 * (outcome - mean) ** 2 / variance - 0.5 * jnp.log(2.0 * math.pi * variance)
        return kept, jnp.where(times > 0.0, log_forecast, 0.0)

    def _moments(self, prepared: Any, row: jax.Array, parameters: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Posterior mean of the outcome, and the standard deviation of its mean."""
        if self.noise_sd is None:
            return parameters[1], jnp.zeros(())
        return predictive_moments(prepared.posterior, row)

    def _bound(self, value: jax.Array, mean: jax.Array, spread: jax.Array, parameters: jax.Array) -> jax.Array:
        if self._kernel == "mle":  # of a rate; unknown, and so 1, before the first outcome
            successes, failures = parameters[2], parameters[3]
            return successes / (successes + failures)
        if self._kernel in ("map", "credible"):
            assert self.noise_sd is not None
            assert isinstance(self._event, IntervalHarm)
            quantile = NormalDist().inv_cdf(self._credible_level) if self._kernel == "credible" else 0.0
            return interval_harm(self._event, self.noise_sd, mean + quantile * spread)
        return value
