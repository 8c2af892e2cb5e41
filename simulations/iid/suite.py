"""The suite `iid`: when the cautious bound begins to hold for good (the paper, Propositions 3.1 and 3.3).

The proposition promises that it does from some number of observations on, and not from which. The table
shows the last violation within the horizon, and how it goes with the KL divergence of the rival that
can mislead: the nearest member that is less harmful than the truth.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
import numpy.typing as npt

from simulations.iid import engine
from simulations.iid.config import IidConfig
from simulations.iid.problems import Case, Problem, build
from simulations.runner.suite import Chunk, Result, Row

GUARANTEES = {"iid": "asymptotic", "predictive": "none", "plausible": "theorem", "ratio": "theorem"}
"""What each bound promises where the truth is a member and no two members are the same distribution."""
LATE = 0.9
"""A violation after this share of the horizon: the run does not show whether the bound holds for good."""


class IidSuite:
    """Observations drawn independently from one truth; see `IidConfig`."""

    name = "iid"
    summary = "from when on the cautious bound holds for good, with independent observations"
    config_type = IidConfig
    work_unit = "runs"

    def chunks(self, config: IidConfig) -> list[Chunk]:
        """Groups of runs of one class, case and separation."""
        return [
            Chunk(
                f"{name}-{case}-{separation!r}-{first:07d}",
                {"class": name, "case": case, "separation": separation, "first": first, "runs": count},
                count,
            )
            for name, case, separation in _cells(config)
            for first in range(0, config.runs, config.chunk)
            for count in [min(config.chunk, config.runs - first)]
        ]

    def run(self, config: IidConfig, chunk: Chunk) -> Result:
        """See `engine.Runs`."""
        spec = chunk.spec
        with jax.enable_x64(True):
            problem = build(spec["class"], spec["case"], spec["separation"])
            found = engine.simulate(problem, config.seed, spec["first"], spec["runs"], config.moments(), config.delta)
            return {name: np.asarray(value) for name, value in found._asdict().items()}

    def rows(self, config: IidConfig, results: Sequence[Result]) -> list[Row]:
        """One row for each class, case, separation and bound."""
        each = math.ceil(config.runs / config.chunk)
        rows: list[Row] = []
        for place, (name, case, separation) in enumerate(_cells(config)):
            parts = results[place * each : (place + 1) * each]
            arrays = {key: np.concatenate([part[key] for part in parts]) for key in engine.Runs._fields}
            with jax.enable_x64(True):
                problem = build(name, case, separation)
            head = {"class": name, "case": case, "separation": separation}
            rows += [head | _row(config, case, problem, arrays, b) for b in range(len(engine.BOUNDS))]
        return rows

    def pictures(self, config: IidConfig, rows: Sequence[Row]) -> Mapping[str, bytes]:
        """Last violation against divergence; share of runs in which bounds hold; posterior mass of the truth."""
        from simulations.figures.iid import held, last_violation, mass

        moments = config.moments()
        return {
            "iid.png": last_violation(rows),
            "iid-held.png": held(rows, moments),
            "iid-mass.png": mass(rows, moments),
        }


SUITE = IidSuite()


def _cells(config: IidConfig) -> list[tuple[Any, Any, float]]:
    return [(name, case, s) for name in config.classes for case in config.cases for s in config.separations]


def _guarantee(bound: str, case: Case) -> str:
    if case.startswith("outside") or (bound == "iid" and case == "duplicate"):
        return "none"
    return GUARANTEES[bound]


def _row(
    config: IidConfig, case: Case, problem: Problem, arrays: Mapping[str, npt.NDArray[Any]], b: int
) -> dict[str, Any]:
    bound = engine.BOUNDS[b]
    last = arrays["last"][:, b]
    # Violated at n means that n + 1 observations at least are needed.
    needed = np.quantile(last + 1, [0.5, 0.9, 0.99], method="higher")
    moments = config.moments()
    return {
        "bound": bound,
        "guarantee": _guarantee(bound, case),
        "hypotheses": len(problem.harm),
        "kl_nearest": problem.nearest,
        "kl_nearest_less_harmful": problem.nearest_less_harmful,
        "delta": config.delta if GUARANTEES[bound] == "theorem" else None,
        "runs": config.runs,
        "horizon": config.horizon,
        "seed": config.seed,
        "ever_violated": float(np.mean(last >= 0)),
        "needed_median": int(needed[0]),
        "needed_q90": int(needed[1]),
        "needed_q99": int(needed[2]),
        "late": float(np.mean(last > LATE * config.horizon)),
        "excess_at_end": float(np.mean(arrays["excess"][:, b])),
        **{f"held_at_{n}": float(np.mean(arrays["held"][:, b, m])) for m, n in enumerate(moments)},
        **{f"truth_mass_at_{n}": float(np.median(arrays["mass"][:, m])) for m, n in enumerate(moments)},
    }
