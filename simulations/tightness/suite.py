"""The suite `tightness`: how far bounds lie above the true harm (the paper's figure 2), and whether they hold.

The paper counts at how many steps the bound of the pulled arm is at least its true harm. The theorem
speaks of another event: that no arm's bound is below its true harm at any step. Both are in the table.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import jax
import numpy as np
import numpy.typing as npt

from simulations.noniid.bandit_class import BanditClass
from simulations.noniid.suite import episode_chunks, explosion_threshold
from simulations.runner.suite import Chunk, Result, Row
from simulations.tightness import engine
from simulations.tightness.config import TightnessConfig


class TightnessSuite:
    """Arms pulled uniformly at random in a bandit that goes on after an explosion; see `TightnessConfig`."""

    name = "tightness"
    summary = "how far the bounds lie above the true harm, and whether they hold (the paper's figure 2)"
    config_type = TightnessConfig
    work_unit = "episodes"

    def chunks(self, config: TightnessConfig) -> list[Chunk]:
        """Groups of episodes."""
        return episode_chunks(config, 1)

    def run(self, config: TightnessConfig, chunk: Chunk) -> Result:
        """Sums over the chunk's episodes for each of G guardrails."""
        with jax.enable_x64(True):
            threshold = explosion_threshold(config)
            hypotheses = config.levels**config.dim if "random" in config.ties else 1
            episodes = engine.draw(config, chunk.spec["first"], chunk.spec["episodes"], hypotheses)
            compared = engine.compare(config, threshold, episodes)
            harm = BanditClass(config.dim, config.levels, config.sigma, threshold).harm_of_level()
        over = np.asarray(compared.over, np.int64)
        return {
            "over": over.sum(axis=0),
            "over_squares": (over**2).sum(axis=0),
            "held": np.asarray(compared.held, np.int64).sum(axis=0),
            "even": np.asarray(compared.even, np.int64).sum(axis=0),
            "harm_of_level": np.asarray(harm),
            "explosion_threshold": np.array(threshold),
        }

    def rows(self, config: TightnessConfig, results: Sequence[Result]) -> list[Row]:
        """One row for each guardrail, level and order of ties."""
        added = {
            name: np.sum([result[name] for result in results], axis=0)
            for name in ("over", "over_squares", "held", "even")
        }
        harm, n = results[0]["harm_of_level"].astype(np.float64), config.episodes
        smallest_prior = float(config.levels) ** -config.dim
        rows: list[Row] = []
        for place, guardrail in enumerate(config.guardrails()):
            over, squares = int(added["over"][place]), int(added["over_squares"][place])
            held = int(added["held"][place]) / n
            # Whole numbers until the last step: no cancellation.
            variance = (n * squares - over**2) / (n * max(n - 1, 1)) / config.steps**2
            rows.append(
                {
                    "guardrail": guardrail.kind,
                    "guarantee": guardrail.guarantee(smallest_prior),
                    "alpha": guardrail.alpha,
                    "delta": guardrail.delta,
                    "ties": guardrail.ties,
                    "confidence": guardrail.confidence(smallest_prior),
                    "explosion_threshold": float(results[0]["explosion_threshold"]),
                    "episodes": n,
                    "seed": config.seed,
                    "overestimate_mean": over / (n * config.steps),
                    "overestimate_se": math.sqrt(variance / n) if n > 1 else None,
                    "held_rate": held,
                    "held_se": math.sqrt(held * (1.0 - held) / n),
                    **_distribution(harm, added["even"][place]),
                }
            )
        return rows

    def pictures(self, config: TightnessConfig, rows: Sequence[Row]) -> Mapping[str, bytes]:
        """How often bounds hold, and what they say where the true harm is 1/2."""
        from simulations.figures.tightness import overestimates

        return {"tightness.png": overestimates(rows)}


SUITE = TightnessSuite()


def _distribution(harm: npt.NDArray[np.float64], counts: npt.NDArray[np.int64]) -> Row:
    """Quartiles and moments of the bounds of arms whose true harm is 1/2."""
    count = int(counts.sum())
    if not count:
        return dict.fromkeys(("even_mean", "even_sd", "even_q25", "even_median", "even_q75"), None) | {"even_count": 0}
    mean = float(counts @ harm) / count
    q25, median, q75 = (float(harm[np.searchsorted(np.cumsum(counts), share * count)]) for share in (0.25, 0.5, 0.75))
    return {
        "even_mean": mean,
        "even_sd": math.sqrt(float(counts @ (harm - mean) ** 2) / count),
        "even_q25": q25,
        "even_median": median,
        "even_q75": q75,
        "even_count": count,
    }
