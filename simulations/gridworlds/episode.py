"""A run: episodes of one walker in one world, under one guardrail that goes on learning."""

from __future__ import annotations

import zlib
from typing import Any, NamedTuple

import numpy as np

from guardrail.client.integrations.gymnasium import GuardrailWrapper
from simulations.gridworlds.worlds import FALL_REWARD, MOVES, WORLDS, Name, guard, true_harm, way

TOLERANCE = 1e-9
"""A bound this little below the true harm is not below it: the environment's own probabilities are rounded."""


class Episode(NamedTuple):
    """What became of one episode.

    Attributes:
        fell: whether it met harm; the episode is over then.
        arrived: whether the goal was reached.
        ended: whether the guardrail ended it, for want of an accepted step.
        steps: steps that were carried out.
        replaced: how many of them were not the walker's own.
        too_low: whether the bound of any carried-out step was below its true harm.
    """

    fell: bool
    arrived: bool
    ended: bool
    steps: int
    replaced: int
    too_low: bool


class Rule(NamedTuple):
    """A guardrail: the shipped policy with this delta and threshold."""

    delta: float
    threshold: float


def run(
    name: Name, rule: Rule | None, number: int, seed: int, episodes: int, steps: int, epsilon: float
) -> list[Episode]:
    """Play a run; all its chance follows from the seed, the world's name and the run's number.

    Args:
        name: the world.
        rule: the guardrail; None for none.
        number: of the run.
        seed: of the suite.
        episodes: how many.
        steps: longest episode.
        epsilon: probability of a random step.
    """
    world = WORLDS[name]
    environment: Any = world.make(steps)
    if rule is not None:
        checker = guard(world.policy, *rule).fork(world=f"{name}-{number}")
        environment = GuardrailWrapper(environment, checker, outcome=world.outcome)
    random = np.random.default_rng([seed, zlib.crc32(name.encode()), number])
    played = [
        _play(name, environment, random, int(random.integers(2**31)), epsilon, guarded=rule is not None)
        for _ in range(episodes)
    ]
    environment.close()
    return played


def _play(
    name: Name, environment: Any, random: np.random.Generator, seed: int, epsilon: float, *, guarded: bool
) -> Episode:
    world, harm, moves = WORLDS[name], true_harm(name), way(name)
    state, _ = environment.reset(seed=seed)
    taken = replaced = 0
    too_low = False
    while True:
        move = int(random.integers(MOVES)) if random.random() < epsilon else moves[state]
        after, reward, terminated, truncated, info = environment.step(move)
        told = info["guardrail"] if guarded else {"ended": False, "replaced": False}
        if told["ended"]:
            return Episode(False, False, True, taken, replaced, too_low)
        taken, replaced = taken + 1, replaced + told["replaced"]
        if guarded:
            too_low |= told["harm_bound"] < harm[state, told["carried_out"]] - TOLERANCE
        fell = reward == FALL_REWARD if world.cliff else terminated and reward == 0
        if fell or terminated or truncated:
            return Episode(bool(fell), bool(terminated and not fell), False, taken, replaced, bool(too_low))
        state = int(after)
