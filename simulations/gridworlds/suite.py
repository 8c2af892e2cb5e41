"""The suite `gridworlds`: falls of walkers in FrozenLake and CliffWalking, with and without a guardrail.

The walker takes the shortest way, as if no step slipped. The guardrail is the shipped policy around the
environment, in process, with `GuardrailWrapper`: the same code that guards an agent.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from simulations.gridworlds.config import GridworldsConfig
from simulations.gridworlds.episode import Episode, Rule, run
from simulations.gridworlds.worlds import WORLDS, Name, promise
from simulations.runner.suite import Chunk, Result, Row


class GridworldsSuite:
    """Walkers in grid worlds; see `GridworldsConfig`."""

    name = "gridworlds"
    summary = "falls of walkers in FrozenLake and CliffWalking, with and without a guardrail around them"
    config_type = GridworldsConfig
    work_unit = "episodes"

    def chunks(self, config: GridworldsConfig) -> list[Chunk]:
        """Groups of runs of one world under one guardrail."""
        return [
            Chunk(
                f"{name}-{'none' if rule is None else f'{rule.delta:g}-{rule.threshold:g}'}-{first:06d}",
                {"world": name, "rule": None if rule is None else list(rule), "first": first, "runs": count},
                count * config.episodes,
            )
            for name, rule in _cells(config)
            for first in range(0, config.runs, config.chunk)
            for count in [min(config.chunk, config.runs - first)]
        ]

    def run(self, config: GridworldsConfig, chunk: Chunk) -> Result:
        """Every field of `Episode`, as arrays [runs, episodes]."""
        spec = chunk.spec
        rule = None if spec["rule"] is None else Rule(*spec["rule"])
        played = [
            run(spec["world"], rule, number, config.seed, config.episodes, config.steps, config.epsilon)
            for number in range(spec["first"], spec["first"] + spec["runs"])
        ]
        return {
            field: np.array([[getattr(episode, field) for episode in episodes] for episodes in played])
            for field in Episode._fields
        }

    def rows(self, config: GridworldsConfig, results: Sequence[Result]) -> list[Row]:
        """One row for each world and guardrail."""
        each = -(-config.runs // config.chunk)
        rows: list[Row] = []
        for place, (name, rule) in enumerate(_cells(config)):
            parts = results[place * each : (place + 1) * each]
            arrays = {field: np.concatenate([part[field] for part in parts]) for field in Episode._fields}
            rows.append(_head(name, rule) | _numbers(config, arrays, guarded=rule is not None))
        return rows

    def pictures(self, config: GridworldsConfig, rows: Sequence[Row]) -> Mapping[str, bytes]:
        """Falls and goals against delta, for every world and threshold."""
        from simulations.figures.gridworlds import draw

        return {"gridworlds.png": draw(rows)}


SUITE = GridworldsSuite()


def _cells(config: GridworldsConfig) -> list[tuple[Name, Rule | None]]:
    rules = [Rule(delta, threshold) for threshold in config.thresholds for delta in config.deltas]
    return [(name, rule) for name in config.worlds for rule in (None, *rules)]


def _head(name: Name, rule: Rule | None) -> dict[str, str | float | None]:
    if rule is None:
        return {
            "world": name,
            "guardrail": "none",
            "threshold": None,
            "delta": None,
            "guarantee": "none",
            "confidence": None,
        }
    guarantee = promise(WORLDS[name].policy, *rule)
    return {
        "world": name,
        "guardrail": "ratio",
        "threshold": rule.threshold,
        "delta": rule.delta,
        "guarantee": guarantee.kind.value,
        "confidence": guarantee.confidence,
    }


def _numbers(
    config: GridworldsConfig, arrays: Mapping[str, npt.NDArray[np.generic]], *, guarded: bool
) -> dict[str, int | float | None]:
    fell, arrived = arrays["fell"].astype(float), arrays["arrived"].astype(float)
    ended, quarter = arrays["ended"].astype(float), max(config.episodes // 4, 1)
    steps, replaced = arrays["steps"].astype(float), arrays["replaced"].astype(float)
    return {
        "runs": config.runs,
        "episodes": config.runs * config.episodes,
        "seed": config.seed,
        "falls": float(fell.mean()),
        "falls_se": _error(fell),
        "goals": float(arrived.mean()),
        "goals_se": _error(arrived),
        "goals_first_quarter": float(arrived[:, :quarter].mean()),
        "goals_last_quarter": float(arrived[:, -quarter:].mean()),
        "ended": float(ended.mean()) if guarded else None,
        "steps_mean": float(steps.mean()),
        "replaced_share": float(replaced.sum() / max(steps.sum(), 1.0)) if guarded else None,
        "runs_with_bound_below_truth": float(arrays["too_low"].any(axis=1).mean()) if guarded else None,
    }


def _error(values: npt.NDArray[np.float64]) -> float:
    """Standard error of the mean of float64[runs, episodes]; the episodes of a run share what was learned."""
    return float(values.mean(axis=1).std(ddof=1) / np.sqrt(len(values)))
