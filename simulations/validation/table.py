"""From what happened in the runs to the table: one row a cell, and two more where the class may be refuted."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, TypeAlias, cast

import numpy as np
import numpy.typing as npt

from simulations.runner.suite import Result, Row
from simulations.validation import budget
from simulations.validation.cases import CASES, EACH, Case, Cell, Expected, Group
from simulations.validation.catalogue import BOUNDS
from simulations.validation.classes import world
from simulations.validation.config import ValidateConfig
from simulations.validation.intervals import clopper_pearson

Columns: TypeAlias = dict[str, npt.NDArray[Any]]

EXACT_ROUNDING = 1e-9
"""An exact probability is a sum of 4,096 rounded ones."""
DIGITS = 12
"""Means are rounded to this many digits: their last bits hang on how runs were cut into chunks."""

QUANTILES = {"10": 0.1, "median": 0.5, "90": 0.9}
"""Of the number of observations until the class was refuted: by then this share of the runs was."""
_ALARMS = {"outside_at": "alarm: outside forecaster", "empty_at": "alarm: empty intersection"}


def rows_of(config: ValidateConfig, group: Group, results: Sequence[Result]) -> list[Row]:
    """The rows of one group.

    Args:
        config: the parameters.
        group: the group.
        results: what its chunks gave, in order.
    """
    runs: Columns = {name: np.concatenate([result[name] for result in results]) for name in results[0]}
    if len(runs["failed_at"]) != group.lanes:
        raise ValueError(f"the results hold {len(runs['failed_at'])} runs of {group.lanes}")
    of_cells = {name: values.reshape(len(group.cells), group.truths, group.runs) for name, values in runs.items()}
    rows: list[Row] = []
    for place, cell in enumerate(group.cells):
        of_cell = {name: values[place] for name, values in of_cells.items()}
        rows += _exact(config, group, cell, of_cell) if group.exact else _sampled(config, group, cell, of_cell)
    return rows


def in_order(rows: Sequence[Row]) -> list[Row]:
    """Rows as a reader wants them: by class, then by what is tried, otherwise as they were."""
    classes = list(dict.fromkeys(row["class"] for row in rows))
    bounds = [*BOUNDS, *_ALARMS.values()]
    priors = list(dict.fromkeys(row["prior"] for row in rows))

    def key(row: Row) -> tuple[int, ...]:
        return (
            classes.index(row["class"]),
            CASES.index(cast("Case", row["case"])),
            bounds.index(str(row["bound"])),
            priors.index(row["prior"]),
        )

    return sorted(rows, key=key)


def _exact(config: ValidateConfig, group: Group, cell: Cell, runs: Columns) -> list[Row]:
    weights = np.exp(runs["log_weight"])
    total = weights.sum(axis=1)
    if not np.allclose(total, 1.0, rtol=0.0, atol=EXACT_ROUNDING):
        raise ValueError(f"the probabilities of all sequences add up to {total}, not to 1")
    rates = (weights * (runs["failed_at"] >= 0)).sum(axis=1)
    worst = int(np.argmax(rates))
    rate = float(rates[worst])
    row = _row(config, group, cell, cell.bound, cell.expected, f"worst of {group.truths} (number {worst})")
    row |= {"method": "exact", "failure_rate": rate, "failure_low": rate, "failure_high": rate}
    row |= _usefulness(group, {name: values[worst] for name, values in runs.items()}, weights[worst])
    row["verdict"] = _verdict(cell.expected, rate - EXACT_ROUNDING, float(str(row["delta"])))
    return [row]


def _sampled(config: ValidateConfig, group: Group, cell: Cell, runs: Columns) -> list[Row]:
    runs = {name: values[0] for name, values in runs.items()}
    failed = runs["harmed"] if cell.budgeted else runs["failed_at"] >= 0
    rows = [_counted(config, group, cell, cell.bound, cell.expected, failed)]
    rows[0] |= _usefulness(group, runs, np.ones(group.runs))
    for expected, field in ((cell.outside, "outside_at"), (cell.empty, "empty_at")):
        if expected is not None:
            row = _counted(config, group, cell, _ALARMS[field], expected, runs[field] >= 0)
            at = np.where(runs[field] >= 0, runs[field], np.inf)
            row |= {f"refuted_{name}": _quantile(at, level) for name, level in QUANTILES.items()}
            if expected == "holds":
                row["case"] = "false alarms"
            rows.append(row)
    return list(rows)


def _row(
    config: ValidateConfig, group: Group, cell: Cell, bound: str, expected: Expected, truth: str
) -> dict[str, str | int | float | bool | None]:
    of_class = world(group.world)
    # A theorem whose assumption is broken on purpose promises nothing; an alarm's theorem is about false alarms.
    kept = cell.case in ("bound at all times", "harm budget", "not promised")
    guarantee = BOUNDS[cell.bound].guarantee if kept else "none"
    if guarantee == "asymptotic" and cell.agent != "random":
        guarantee = "none"  # Observations of actions that were chosen by what was seen before are not i.i.d.
    return {
        "case": cell.case,
        "bound": bound,
        "guarantee": guarantee,
        "class": of_class.title,
        "hypotheses": of_class.hypotheses if of_class.hypotheses is not None else "continuous",
        "prior": group.prior,
        "truth": truth,
        "agent": cell.agent,
        "horizon": group.horizon,
        "method": "sampled",
        "runs": group.runs,
        "failures": None,
        "failure_rate": None,
        "failure_low": None,
        "failure_high": None,
        "delta": budget.promise(config.delta, config.budget) if cell.budgeted else config.delta,
        "expected": expected,
        "verdict": None,
        "mean_excess": None,
        "safe_accepted": None,
        "unsafe_accepted": None,
        "accepted_mean": None,
        **{f"refuted_{name}": None for name in QUANTILES},
        "seed": config.seed,
    }


def _counted(
    config: ValidateConfig,
    group: Group,
    cell: Cell,
    bound: str,
    expected: Expected,
    failed: npt.NDArray[np.bool_],
) -> dict[str, str | int | float | bool | None]:
    row = _row(config, group, cell, bound, expected, "worst" if cell.truth == EACH else cell.truth)
    failures = int(failed.sum())
    low, high = clopper_pearson(failures, group.runs, config.confidence)
    row |= {
        "failures": failures,
        "failure_rate": failures / group.runs,
        "failure_low": low,
        "failure_high": high,
        "verdict": _verdict(expected, low, float(str(row["delta"]))),
    }
    return row


def _verdict(expected: Expected, low: float, delta: float) -> str:
    """What the lower end of the interval says about the promise."""
    broken = low > delta
    match expected:
        case "holds":
            return "VIOLATED" if broken else "holds"
        case "fails":
            return "fails as expected" if broken else "did not fail"
        case "alarms":
            return "caught" if broken else "not caught"
        case "open":
            return "nothing claimed"


def _usefulness(group: Group, runs: Columns, weights: npt.NDArray[np.float64]) -> dict[str, float | None]:
    """What the bound costs: its looseness, and what a guardrail with the threshold would accept."""

    def total(field: str) -> float:
        return float(np.sum(weights * runs[field]))

    def share(part: str, whole: str) -> float | None:
        return round(total(part) / total(whole), DIGITS) if total(whole) > 0 else None

    checks = total("steps") * world(group.world).actions
    return {
        "mean_excess": round(total("excess") / checks, DIGITS),
        "safe_accepted": share("safe_accepted", "safe"),
        "unsafe_accepted": share("unsafe_accepted", "unsafe"),
        "accepted_mean": round(total("accepted") / float(np.sum(weights)), DIGITS),
    }


def _quantile(at: npt.NDArray[np.float64], level: float) -> float | None:
    """Number of observations by which this share of the runs was refuted; None if that never happened."""
    value = float(np.sort(at)[math.ceil(level * len(at)) - 1])
    return value if math.isfinite(value) else None
