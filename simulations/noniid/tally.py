"""From episodes to a table's means: sums that chunks can be added up by, and the two ways of counting."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

Floats: TypeAlias = npt.NDArray[np.float64]


class Tally(NamedTuple):
    """Sums over the episodes of a chunk, each float64[cells] but the number of episodes, float64[].

    Attributes:
        episodes: how many.
        reward: sum of the rewards.
        reward_squares: sum of the squared distances from the chunk's mean reward.
        deaths: episodes that ended in an explosion.
        steps: arms pulled.
        rejections: arms that the agent chose and the guardrail rejected.
        exhausted: episodes that ended because every arm was rejected.
    """

    episodes: Floats
    reward: Floats
    reward_squares: Floats
    deaths: Floats
    steps: Floats
    rejections: Floats
    exhausted: Floats


def tally(
    outcomes: Mapping[str, npt.NDArray[Any]], accounting: Literal["complete", "authors"], longest: int, arms: int
) -> Tally:
    """Add up the outcomes of a chunk's episodes, each array of shape [cells, episodes].

    Args:
        outcomes: see `engine.Outcomes`.
        accounting: "authors" counts as the paper's code does: an episode that lasted all its steps is
            survived even if the last one exploded, and after the last arm was rejected the steps that were
            left count, with every arm rejected.
        longest: steps of a full episode.
        arms: number of arms.
    """
    steps, rejections, died = (outcomes[name].astype(np.int64) for name in ("steps", "rejections", "exploded"))
    if accounting == "authors":
        died = died * (steps < longest)
        left = np.where(outcomes["exhausted"], longest - steps, 0)
        # The step that rejected the last arm is counted already.
        rejections = rejections + arms * np.maximum(left - 1, 0)
        steps = steps + left
    reward = outcomes["reward"].astype(np.float64)
    off_mean = reward - np.mean(reward, axis=1, keepdims=True)
    counts = (np.sum(array, axis=1).astype(np.float64) for array in (died, steps, rejections, outcomes["exhausted"]))
    return Tally(np.array(float(reward.shape[1])), np.sum(reward, axis=1), np.sum(off_mean**2, axis=1), *counts)


def summaries(tallies: Sequence[Tally]) -> list[dict[str, int | float | None]]:
    """Means and standard errors of each cell over the chunks."""
    stacked = Tally(*(np.stack(parts) for parts in zip(*tallies, strict=True)))
    episodes = math.fsum(stacked.episodes)
    return [_summary(stacked, cell, episodes) for cell in range(stacked.reward.shape[1])]


def _summary(stacked: Tally, cell: int, episodes: float) -> dict[str, int | float | None]:
    def mean(values: Floats) -> float:
        return math.fsum(values[:, cell]) / episodes

    reward, deaths = mean(stacked.reward), mean(stacked.deaths)
    between = stacked.episodes * (stacked.reward[:, cell] / stacked.episodes - reward) ** 2
    squares = math.fsum(stacked.reward_squares[:, cell]) + math.fsum(between)
    return {
        "reward_mean": reward,
        "reward_se": math.sqrt(squares / (episodes - 1) / episodes) if episodes > 1 else None,
        "death_rate": deaths,
        "death_se": math.sqrt(deaths * (1.0 - deaths) / episodes),
        "steps_mean": mean(stacked.steps),
        "rejections_mean": mean(stacked.rejections),
        "exhausted_rate": mean(stacked.exhausted),
    }
