"""Gymnasium environments; importing this package registers them."""

from __future__ import annotations

import gymnasium

from simulations.environments.exploding_bandit import ExplodingBandit

__all__ = ["ExplodingBandit"]

gymnasium.register(
    id="guardrail/ExplodingBandit-v0",
    entry_point="simulations.environments.exploding_bandit:ExplodingBandit",
    max_episode_steps=25,
)
