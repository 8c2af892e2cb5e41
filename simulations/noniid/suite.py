"""The suite `noniid`: reward and explosions under every guardrail (the paper's figure 1)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
import numpy.typing as npt

from simulations.environments.vectorised import usual_threshold
from simulations.noniid.config import BanditConfig, NoniidConfig
from simulations.noniid.engine import Outcomes, as_arrays, by_program, engine_for
from simulations.noniid.guardrails import Guardrail
from simulations.noniid.tally import Tally, summaries, tally
from simulations.runner.suite import Chunk, Result, Row


class NoniidSuite:
    """An agent that seeks reward in the exploding bandit; see `NoniidConfig`."""

    name = "noniid"
    summary = "reward and explosions of an agent in the exploding bandit under each guardrail (the paper's figure 1)"
    config_type = NoniidConfig
    work_unit = "episodes"

    def chunks(self, config: NoniidConfig) -> list[Chunk]:
        """Groups of episodes, each played under every guardrail and threshold."""
        return episode_chunks(config, len(config.guardrails()) * len(config.thresholds))

    def run(self, config: NoniidConfig, chunk: Chunk) -> Result:
        """A `Tally` of each guardrail under each threshold, in the order of the table."""
        guardrails, thresholds = config.guardrails(), config.thresholds
        played: dict[int, Mapping[str, npt.NDArray[Any]]] = {}
        with jax.enable_x64(True):
            explosion = explosion_threshold(config)
            engine = engine_for(config, explosion)
            orders = any(guardrail.ties == "random" for guardrail in guardrails)
            episodes = engine.draw(chunk.spec["first"], chunk.spec["episodes"], orders=orders)
            for (kind, ties), places in by_program(guardrails).items():
                # Without a bound nothing depends on the threshold: one cell stands for all.
                tried = thresholds[:1] if kind == "none" else thresholds
                levels = np.repeat([guardrails[place].level or 0.0 for place in places], len(tried))
                outcomes = engine.program(kind, ties).play(episodes, np.tile(tried, len(places)), levels)
                arrays = as_arrays(outcomes, len(levels))
                for order, place in enumerate(places):
                    for t in range(len(thresholds)):
                        cell = order * len(tried) + min(t, len(tried) - 1)
                        played[place * len(thresholds) + t] = {name: array[cell] for name, array in arrays.items()}
        outcomes_by_cell = {
            name: np.stack([played[cell][name] for cell in sorted(played)]) for name in Outcomes._fields
        }
        added = tally(outcomes_by_cell, config.accounting, config.steps, config.arms)
        return {**added._asdict(), "explosion_threshold": np.array(explosion)}

    def rows(self, config: NoniidConfig, results: Sequence[Result]) -> list[Row]:
        """One row for each guardrail, level, order of ties and threshold."""
        tallies = [Tally(*(result[name].astype(np.float64) for name in Tally._fields)) for result in results]
        explosion = float(results[0]["explosion_threshold"])
        cells = [(guardrail, threshold) for guardrail in config.guardrails() for threshold in config.thresholds]
        return [
            {**_cell(config, guardrail, threshold, explosion), **summary}
            for (guardrail, threshold), summary in zip(cells, summaries(tallies), strict=True)
        ]

    def pictures(self, config: NoniidConfig, rows: Sequence[Row]) -> Mapping[str, bytes]:
        """Reward and deaths against alpha for each threshold."""
        from simulations.figures.noniid import reward_and_deaths

        return {"noniid.png": reward_and_deaths(rows)}


SUITE = NoniidSuite()


def episode_chunks(config: BanditConfig, cells: int) -> list[Chunk]:
    """All episodes in groups of `config.chunk`; `cells` is how often each is played."""
    firsts = range(0, config.episodes, config.chunk)
    counts = [min(config.chunk, config.episodes - first) for first in firsts]
    return [
        Chunk(f"episodes-{first:09d}", {"first": first, "episodes": count}, count * cells)
        for first, count in zip(firsts, counts, strict=True)
    ]


def explosion_threshold(config: BanditConfig) -> float:
    """The configured threshold of an explosion, or the one that the paper's rule gives; under 64-bit mode."""
    if config.explosion_threshold is not None:
        return config.explosion_threshold
    return usual_threshold(config.seed, config.arms, config.dim, config.levels)


def _cell(config: NoniidConfig, guardrail: Guardrail, threshold: float, explosion: float) -> Row:
    smallest_prior = float(config.levels) ** -config.dim
    return {
        "guardrail": guardrail.kind,
        "guarantee": guardrail.guarantee(smallest_prior),
        "threshold": threshold,
        "alpha": guardrail.alpha,
        "delta": guardrail.delta,
        "ties": guardrail.ties,
        "confidence": guardrail.confidence(smallest_prior),
        "accounting": config.accounting,
        "explosion_threshold": explosion,
        "episodes": config.episodes,
        "seed": config.seed,
    }
