"""The sweep of the paper's figure 1: processor time of an episode under each guardrail, and what it is made of.

Times are processor time of all cores, compilation apart. The comparison is the time of the authors' code
(github.com/saifh-github/conservative-bayesian-public), measured on one core of the same kind of machine:
about 20 ms an episode on average over this grid. Within the run, the reference is an episode without a
guardrail: what a step costs besides it is the bound.
"""

from __future__ import annotations

import argparse
import json
import time
from functools import partial
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from simulations.noniid.config import NoniidConfig
from simulations.noniid.engine import Engine, as_arrays, by_program

if TYPE_CHECKING:
    from collections.abc import Callable

EPISODES = 2_500
THRESHOLD = 4.0
AUTHORS_MILLISECONDS = 20.0
CONFIG = NoniidConfig(bounds=("none", "cheating", "predictive", "iid", "plausible"))
"""Three thresholds and 13 guardrails: four without a level, and nine levels of the plausible set."""


def run() -> dict[str, Any]:
    """Processor time of every guardrail and its parts."""
    with jax.enable_x64(True):
        engine = Engine(CONFIG, THRESHOLD)
        compiling, _ = _processor_seconds(partial(engine.draw, 0, EPISODES, orders=False))
        drawing, episodes = _processor_seconds(partial(engine.draw, 0, EPISODES, orders=False))
        guardrails = CONFIG.guardrails()
        measured: dict[str, Any] = {}
        seconds, cells = drawing, 0
        for (kind, ties), places in by_program(guardrails).items():
            levels = np.repeat([guardrails[place].level or 0.0 for place in places], len(CONFIG.thresholds))
            thresholds = np.tile(CONFIG.thresholds, len(places))
            program = engine.program(kind, ties)
            lowered = program.play.lower(episodes, thresholds, levels)
            compile_seconds, play = _processor_seconds(lowered.compile)
            spent, outcomes = _processor_seconds(partial(play, episodes, thresholds, levels))
            arrays = as_arrays(outcomes, len(levels))
            checks = int(arrays["steps"].sum() + arrays["exhausted"].sum())
            measured[kind] = {
                "cells": len(levels),
                "episodes_per_core_second": len(levels) * EPISODES / spent,
                "microseconds_per_episode": 1e6 * spent / (len(levels) * EPISODES),
                "steps_per_episode": checks / (len(levels) * EPISODES),
                "microseconds_per_step": 1e6 * spent / checks,
                "compile_seconds": compile_seconds,
            }
            seconds, cells, compiling = seconds + spent, cells + len(levels), compiling + compile_seconds
    for kind in measured.values():
        kind["bound_share_of_step"] = 1.0 - measured["none"]["microseconds_per_step"] / kind["microseconds_per_step"]
    average = 1e3 * seconds / (cells * EPISODES)
    return {
        "grid": {
            "cells": cells,
            "milliseconds_per_episode": average,
            "authors_over_ours": AUTHORS_MILLISECONDS / average,
            "drawing_microseconds_per_episode": 1e6 * drawing / EPISODES,
            "compile_seconds": compiling,
        },
        "guardrails": measured,
    }


def report(results: dict[str, Any]) -> str:
    """A table for people."""
    grid = results["grid"]
    header = f"{'guardrail':>12} {'cells':>6} {'episodes / core second':>23} {'us / episode':>13}"
    lines = [
        f"simulations: {grid['cells']} cells of {EPISODES} episodes, {grid['milliseconds_per_episode']:.3f} ms of one "
        f"core an episode; the authors' code takes {AUTHORS_MILLISECONDS:.0f} ms, {grid['authors_over_ours']:.0f} "
        "times as long",
        f"problems and chance, shared by all cells: {grid['drawing_microseconds_per_episode']:.0f} us an episode; "
        f"compilation, once: {grid['compile_seconds']:.1f} s",
        f"{header} {'steps':>6} {'us / step':>10} {'of it the bound':>16}",
    ]
    for name, found in results["guardrails"].items():
        lines.append(
            f"{name:>12} {found['cells']:>6} {found['episodes_per_core_second']:>23.0f} "
            f"{found['microseconds_per_episode']:>13.1f} {found['steps_per_episode']:>6.1f} "
            f"{found['microseconds_per_step']:>10.1f} {found['bound_share_of_step']:>15.0%}"
        )
    return "\n".join(lines)


def _processor_seconds(work: Callable[[], Any]) -> tuple[float, Any]:
    """Processor time of all threads, and the result."""
    start = time.process_time()
    result = work()
    jax.block_until_ready(result)  # type: ignore[no-untyped-call]
    return time.process_time() - start, result


def main() -> None:
    """Print the table, or JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    results = run()
    print(json.dumps(results, indent=2) if arguments.json else report(results))


if __name__ == "__main__":
    main()
