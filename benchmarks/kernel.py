"""Kernels of the enumerated oracle, against reading the posterior once, at 2^10, 2^16 and 2^20 hypotheses.

The lattice has four levels for each weight, the bound is `ratio`. Everything is timed through the
oracle's public methods, interleaved in one process, medians of repeated runs; both references are
compiled programs over a float64 array of the same size: its plain maximum, and its maximum over a
Boolean mask.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import time
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from guardrail.domain import IntervalHarm
from guardrail.hypotheses.linear_gaussian_lattice import LinearGaussianLatticeFamily
from guardrail.oracles.enumerated import EnumeratedOracle
from guardrail.policy.schema import RatioBound

if TYPE_CHECKING:
    from collections.abc import Callable

EXPONENTS = (10, 16, 20)
LEVELS = 4
ACTIONS = 64
OBSERVATIONS = 50
REPEATS = {10: 400, 16: 100, 20: 30}


def run() -> dict[str, Any]:
    """Times of every size, and their ratios to the two references."""
    return {f"2^{exponent}": _measure(exponent) for exponent in EXPONENTS}


def report(results: dict[str, Any]) -> str:
    """A table of ratios for people."""
    lines = [
        "kernel: times over reading the posterior once (a plain maximum) and over one masked maximum",
        f"{'hypotheses':>12} {'':<22} {'microseconds':>13} {'/ maximum':>11} {'/ masked maximum':>17}",
    ]
    for size, measured in results.items():
        for name, microseconds in measured["microseconds"].items():
            ratios = measured["over_maximum"][name], measured["over_masked_maximum"][name]
            lines.append(f"{size:>12} {name:<22} {microseconds:>13.1f} {ratios[0]:>11.2f} {ratios[1]:>17.2f}")
        compiling = ", ".join(f"{name} {seconds:.2f} s" for name, seconds in measured["compile_seconds"].items())
        lines.append(f"{size:>12} first calls, with compilation: {compiling}")
    return "\n".join(lines)


def _measure(exponent: int) -> dict[str, Any]:
    features = exponent // int(math.log2(LEVELS))
    harm = IntervalHarm(lower=1.2 * features, upper=math.inf, inside=True)
    family = LinearGaussianLatticeFamily(LEVELS, 1.0, None, harm, tuple(f"x{i}" for i in range(features)))
    oracle = EnumeratedOracle(family, RatioBound(kind="ratio", delta=0.05))
    random = np.random.default_rng(exponent)
    rows = random.random((OBSERVATIONS, features))
    outcomes = rows @ random.integers(0, LEVELS, features) + random.normal(size=OBSERVATIONS)
    actions = random.random((ACTIONS, features))

    compile_seconds = {
        "init": _seconds(oracle.init),
        "observe": _seconds(lambda: oracle.refuted(oracle.observe(oracle.init(), rows[:1], outcomes[:1]))),
        "check": _seconds(lambda: oracle.bound(oracle.init(), actions[:1])),
    }
    state = oracle.observe(oracle.init(), rows, outcomes)
    maximum, masked_maximum = _references(np.asarray(state.posterior.log_weight), random.random(family.size) < 0.3)
    medians = _medians(
        {
            "maximum": maximum,
            "masked maximum": masked_maximum,
            "check": lambda: oracle.bound(state, actions[:1]),
            # What checks share is computed when it is first asked for.
            "observe": lambda: oracle.refuted(oracle.observe(state, rows[:1], outcomes[:1])),
        },
        REPEATS[exponent],
    ) | _medians({"check, one of 64": lambda: oracle.bound(state, actions)}, max(5, REPEATS[exponent] // 20), ACTIONS)
    return {
        "microseconds": {name: 1e6 * seconds for name, seconds in medians.items()},
        "over_maximum": {name: seconds / medians["maximum"] for name, seconds in medians.items()},
        "over_masked_maximum": {name: seconds / medians["masked maximum"] for name, seconds in medians.items()},
        "compile_seconds": compile_seconds,
    }


def _references(
    values: np.ndarray[Any, Any], mask: np.ndarray[Any, Any]
) -> tuple[Callable[[], Any], Callable[[], Any]]:
    def largest(values: jax.Array) -> jax.Array:
        return jnp.max(values)

    def largest_of_members(values: jax.Array, mask: jax.Array) -> jax.Array:
        return jnp.max(jnp.where(mask, values, -jnp.inf))

    plain, masked = jax.jit(largest), jax.jit(largest_of_members)
    with jax.enable_x64(True):
        array, members = jax.device_put(values), jax.device_put(mask)

    def read() -> Any:
        with jax.enable_x64(True):
            return float(plain(array))

    def read_members() -> Any:
        with jax.enable_x64(True):
            return float(masked(array, members))

    return read, read_members


def _medians(functions: dict[str, Callable[[], Any]], repeats: int, divisor: int = 1) -> dict[str, float]:
    """Median seconds of each function over `divisor`, the functions taking turns."""
    times: dict[str, list[float]] = {name: [] for name in functions}
    for function in functions.values():
        function()
    for _ in range(repeats):
        for name, function in functions.items():
            times[name].append(_seconds(function))
    return {name: statistics.median(seconds) / divisor for name, seconds in times.items()}


def _seconds(function: Callable[[], Any]) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def main() -> None:
    """Print the table, or with --json the numbers."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.kernel", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    results = run()
    print(json.dumps(results, indent=2) if parser.parse_args().json else report(results))


if __name__ == "__main__":
    main()
