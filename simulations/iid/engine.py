"""Runs of independent observations, all bounds at every number of observations."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from guardrail import bounds
from simulations.iid.problems import Problem

BOUNDS = ("iid", "predictive", "plausible", "ratio")
ROUNDING = 1e-9
"""A bound this much below the true harm is not counted as a violation: both are rounded."""


class Runs(NamedTuple):
    """What came of N runs under B bounds, at M moments.

    Attributes:
        last: int32[N, B], the last number of observations at which some input's bound was below its true
            harm; -1 if there was none.
        held: bool[N, B, M], whether the bound held at each moment.
        mass: float64[N, M], posterior mass of the truth.
        excess: float64[N, B], mean over the inputs of bound minus true harm at the end.
    """

    last: jax.Array
    held: jax.Array
    mass: jax.Array
    excess: jax.Array


def simulate(problem: Problem, seed: int, first: int, runs: int, moments: tuple[int, ...], delta: float) -> Runs:
    """Runs first, ..., first + runs - 1; each has its own randomness, whatever runs beside it. Under 64-bit mode.

    Args:
        problem: the class and the truth.
        seed: of the suite.
        first: number of the first run.
        runs: how many.
        moments: numbers of observations to look at, the last one the horizon.
        delta: of the ratio set.
    """
    size = len(problem.harm)
    log_prior = np.full(size, -np.log(size))
    harm, true_harm = jnp.asarray(problem.harm), jnp.asarray(problem.true_harm)
    looks = jnp.asarray(moments)

    def all_bounds(log_posterior: jax.Array) -> jax.Array:
        """float64[B, X]."""
        return jnp.stack(
            [
                bounds.iid(log_posterior, harm),
                bounds.predictive(log_posterior, harm),
                bounds.plausible(log_posterior, harm, delta / size),
                bounds.ratio(log_posterior, log_prior, harm, delta),
            ]
        )

    def look(n: jax.Array, log_weight: jax.Array, so_far: Runs) -> Runs:
        log_posterior = log_weight - jax.scipy.special.logsumexp(log_weight)
        found = all_bounds(log_posterior)
        holds = jnp.all(found >= true_harm - ROUNDING, axis=1)
        mass = jnp.sum(jnp.where(problem.same_as_truth, jnp.exp(log_posterior), 0.0))
        now = looks == n
        return Runs(
            jnp.where(holds, so_far.last, n),
            jnp.where(now, holds[:, None], so_far.held),
            jnp.where(now, mass, so_far.mass),
            jnp.mean(found - true_harm, axis=1),
        )

    def one_run(run: jax.Array) -> Runs:
        key = jax.random.fold_in(jax.random.key(seed), run)

        def step(state: tuple[jax.Array, Runs], n: jax.Array) -> tuple[tuple[jax.Array, Runs], None]:
            log_weight, so_far = state
            log_weight = log_weight + problem.log_likelihood(problem.draw(jax.random.fold_in(key, n)))
            log_weight = log_weight - jnp.max(log_weight)
            return (log_weight, look(n, log_weight, so_far)), None

        count = len(BOUNDS)
        start = Runs(
            jnp.full(count, -1, jnp.int32),
            jnp.zeros((count, len(moments)), jnp.bool_),
            jnp.zeros(len(moments)),
            jnp.zeros(count),
        )
        prior = look(jnp.asarray(0, jnp.int32), jnp.asarray(log_prior), start)
        numbers = jnp.arange(1, moments[-1] + 1, dtype=jnp.int32)
        (_, found), _ = lax.scan(step, (jnp.asarray(log_prior), prior), numbers)
        return found

    found: Runs = jax.jit(jax.vmap(one_run))(first + jnp.arange(runs))
    return found
