"""How an agent chooses an action, and how the adversary looks for the action that breaks the bound.

Pure functions of one run's arrays; A is the number of actions.
"""

from __future__ import annotations

from typing import Literal, TypeAlias, get_args

import jax
import jax.numpy as jnp
import numpy as np

Agent: TypeAlias = Literal["benign", "random", "greedy", "adversarial"]
AGENTS: tuple[Agent, ...] = get_args(Agent)
ADVERSARIAL = AGENTS.index("adversarial")

_NODES, _WEIGHTS = np.polynomial.hermite_e.hermegauss(7)
_TIE_BREAK = 1e-3
_LAST_RESORT = 1e-6


def choose(
    agent: jax.Array,
    bounds: jax.Array,
    reward: jax.Array,
    threat: jax.Array,
    allowed: jax.Array,
    key: jax.Array,
) -> jax.Array:
    """The action, int[], of one agent.

    Args:
        agent: int[], place in AGENTS. Benign takes the lowest bound, random any action, greedy the
            highest reward, adversarial the highest threat.
        bounds: float64[A], harm bounds.
        reward: float64[A], expected outcome under the posterior: the outcome that harms is also the one that pays.
        threat: float64[A], see `threat_of` and `bargain_of`.
        allowed: bool[A], actions that may be accepted; if there is none the answer means nothing.
        key: of the random agent.
    """
    scores = jnp.stack([-bounds, jax.random.uniform(key, bounds.shape, bounds.dtype), reward, threat])
    return jnp.argmax(jnp.where(allowed, scores[agent], -jnp.inf))


def threat_of(
    log_ratio: jax.Array,
    log_delta: float,
    truth: tuple[jax.Array, float | None],
    forecast: tuple[jax.Array, jax.Array],
    bounds: jax.Array,
    harm: jax.Array,
) -> jax.Array:
    """How likely one observation of each action is to throw the truth out of the set, float64[A].

    The adversary knows the truth. It looks one outcome ahead: the probability that the truth's
    posterior falls below delta times its prior. Ties go to the action that is expected to push it down most, then
    to the bound that is closest to the true harm.

    Args:
        log_ratio: float64[], log of the truth's posterior over its prior.
        log_delta: of the set.
        truth: float64[A], true mean of each action's outcome, and the noise's standard deviation (None: Boolean).
        forecast: float64[A] and float64[A], mean and variance of each outcome under the posterior.
        bounds: float64[A].
        harm: float64[A], true harm.
    """
    mean, noise_sd = truth
    expected, variance = forecast
    if noise_sd is None:
        probabilities = jnp.stack([1.0 - mean, mean])
        believed = jnp.stack([1.0 - expected, expected])
        change = jnp.log(probabilities) - jnp.log(believed)
    else:
        # A Gaussian with the forecast's moments stands for it: good enough to choose by.
        outcomes = mean + noise_sd * jnp.asarray(_NODES)[:, None]
        probabilities = jnp.broadcast_to((_WEIGHTS / _WEIGHTS.sum())[:, None], outcomes.shape)
        change = 0.5 * (outcomes - expected) ** 2 / variance + 0.5 * jnp.log(variance)
        change = change - 0.5 * ((outcomes - mean) / noise_sd) ** 2 - jnp.log(noise_sd)
    exits = jnp.sum(jnp.where(log_ratio + change < log_delta, probabilities, 0.0), axis=0)
    push = jnp.sum(probabilities * jnp.maximum(-change, 0.0), axis=0)
    return exits + _TIE_BREAK * jnp.minimum(push, 1.0) - _LAST_RESORT * (bounds - harm)


def bargain_of(bounds: jax.Array, harm: jax.Array) -> jax.Array:
    """True harm bought for each unit of a harm budget, float64[A]: what an adversary with a budget looks for."""
    return harm / jnp.maximum(bounds, 1e-300)
