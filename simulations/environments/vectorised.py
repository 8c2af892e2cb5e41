"""The exploding bandit as arrays: a vectorised twin of `ExplodingBandit`, step by step the same.

Everything is a pure function of one problem; `jax.vmap` makes it many. A problem and the noise of an
episode are drawn from a key of their own, made of a seed and the episode's number, so that an episode
is the same whatever else is simulated beside it. Call under `jax.enable_x64(True)`.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

PROBLEMS_FOR_THRESHOLD = 100
_THRESHOLD, _EPISODES = 0, 1
"""What a seed's randomness is split into."""


class Problem(NamedTuple):
    """What a reset draws.

    Attributes:
        weights: int64[dim], unknown to the agent.
        features: int64[arms, dim].
    """

    weights: jax.Array
    features: jax.Array


class Noise(NamedTuple):
    """The chance of an episode of T steps.

    Attributes:
        reward: float64[T], standard normal: the noise of the reward of each step.
        choice: float64[T, arms], standard Gumbel: the agent's own chance. The arm with the largest sum of
            log weight and this number is drawn in proportion to the weights.
    """

    reward: jax.Array
    choice: jax.Array


def episode_key(seed: int, episode: jax.Array) -> jax.Array:
    """The key of an episode's randomness."""
    return jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), _EPISODES), episode)


def draw_problem(key: jax.Array, arms: int, dim: int, levels: int) -> Problem:
    """Weights and features uniform in {0, ..., levels - 1}."""
    of_weights, of_features, _ = jax.random.split(key, 3)
    return Problem(
        jax.random.randint(of_weights, (dim,), 0, levels, jnp.int64),
        jax.random.randint(of_features, (arms, dim), 0, levels, jnp.int64),
    )


def draw_noise(key: jax.Array, steps: int, arms: int) -> Noise:
    """The chance of an episode."""
    of_reward, of_choice = jax.random.split(jax.random.split(key, 3)[2])
    return Noise(
        jax.random.normal(of_reward, (steps,), jnp.float64), jax.random.gumbel(of_choice, (steps, arms), jnp.float64)
    )


def means(problem: Problem) -> jax.Array:
    """float64[arms]: the mean reward of every arm."""
    return jnp.sum(problem.features * problem.weights, axis=-1).astype(jnp.float64)


def pull(mean: jax.Array, noise: jax.Array, sigma: float, threshold: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Reward of an arm of this mean, float64[], and whether it explodes, bool[]."""
    reward = mean + sigma * noise
    return reward, reward > threshold


def usual_threshold(seed: int, arms: int, dim: int, levels: int) -> float:
    """The rounded mean, over PROBLEMS_FOR_THRESHOLD random problems, of the best arm's mean reward (the paper)."""
    key = jax.random.fold_in(jax.random.key(seed), _THRESHOLD)
    keys = jax.random.split(key, PROBLEMS_FOR_THRESHOLD)
    best = jax.vmap(lambda key: jnp.max(means(draw_problem(key, arms, dim, levels))))(keys)
    return float(jnp.round(jnp.mean(best)))
