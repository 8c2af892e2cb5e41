"""Large classes: checks and observations against one pass over the log weights, and against plain PyTorch.

A lattice with four levels for each weight, bound `ratio`. The floor is a compiled maximum over float64[H], which reads
what a posterior is made of once. PyTorch computes the same bound and predictive harm the straightforward way, looking
at every hypothesis; it is left out if it is not installed. All within one process, taking turns, medians.
"""

from __future__ import annotations

import argparse
import importlib.util
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
from guardrail.oracles import placement
from guardrail.oracles.enumerated import EnumeratedOracle
from guardrail.policy.schema import RatioBound

if TYPE_CHECKING:
    from collections.abc import Callable

EXPONENTS = (16, 18, 20, 22, 24, 26)
LEVELS, DELTA, NOISE = 4, 0.05, 1.0
ACTIONS, OBSERVATIONS = 64, 50
SECONDS = 2.0
"""About how long each thing is repeated."""
MOST_REPEATS = 100


def run(exponents: tuple[int, ...] = EXPONENTS, device: placement.DeviceKind = "cpu") -> dict[str, Any]:
    """Times of every size and their ratios to the floor."""
    devices = placement.devices(device)
    return {
        "device": f"{len(devices)} x {devices[0].device_kind}",
        "sizes": {f"2^{exponent}": _measure(exponent, devices) for exponent in exponents},
    }


def report(results: dict[str, Any]) -> str:
    """A table of ratios for people."""
    lines = [
        f"large classes on {results['device']}: times over one pass over float64[H] (the floor)",
        f"{'hypotheses':>10} {'floor, ms':>10} {'check':>8} {'at the prior':>13} {'of 64':>8} {'observation':>12} "
        f"{'scanned':>8} {'torch check':>12} {'torch observation':>18}",
    ]
    for size, found in results["sizes"].items():
        ratio = found["over_floor"]
        torch = [f"{ratio[name]:.1f}" if name in ratio else "-" for name in ("torch check", "torch observation")]
        lines.append(
            f"{size:>10} {found['milliseconds']['floor']:>10.2f} {ratio['check']:>8.2f} "
            f"{ratio['check at the prior']:>13.2f} {ratio['check, each of 64']:>8.2f} {ratio['observation']:>12.2f} "
            f"{found['scanned']:>8.1%} {torch[0]:>12} {torch[1]:>18}"
        )
    return "\n".join(lines)


def _measure(exponent: int, devices: tuple[jax.Device, ...]) -> dict[str, Any]:
    features = exponent // int(math.log2(LEVELS))
    threshold = 1.2 * features
    family = LinearGaussianLatticeFamily(
        LEVELS, NOISE, None, IntervalHarm(threshold, math.inf, inside=True), tuple(f"x{i}" for i in range(features))
    )
    oracle = EnumeratedOracle(family, RatioBound(kind="ratio", delta=DELTA), devices)
    random = np.random.default_rng(exponent)
    rows = random.random((OBSERVATIONS, features))
    outcomes = rows @ random.integers(0, LEVELS, features) + random.normal(size=OBSERVATIONS)
    actions = random.random((ACTIONS, features))

    state = oracle.observe(oracle.init(), rows, outcomes)
    found = oracle.bound(state, actions)
    measured: dict[str, Callable[[], Any]] = {
        "floor": _floor(state.posterior.log_weight),
        "check": lambda: oracle.bound(state, actions[:1]),
        "check at the prior": lambda: oracle.bound(oracle.init(), actions[:1]),
        "observation": lambda: oracle.refuted(oracle.observe(state, rows[:1], outcomes[:1])),
        "check, each of 64": lambda: oracle.bound(state, actions),
    }
    if importlib.util.find_spec("torch") is not None:
        measured |= _torch(features, rows, outcomes, actions[0], threshold, found[0].value)
    seconds = _medians(measured)
    seconds["check, each of 64"] /= ACTIONS
    return {
        "milliseconds": {name: 1e3 * each for name, each in seconds.items()},
        "over_floor": {name: each / seconds["floor"] for name, each in seconds.items()},
        "scanned": statistics.fmean(bound.search.scanned for bound in found if bound.search is not None),
    }


def _floor(log_weight: jax.Array) -> Callable[[], Any]:
    largest = jax.jit(jnp.max)

    def read() -> float:
        with jax.enable_x64(True):
            return float(largest(log_weight))

    return read


def _torch(
    features: int,
    rows: np.ndarray[Any, Any],
    outcomes: np.ndarray[Any, Any],
    action: np.ndarray[Any, Any],
    threshold: float,
    expected: float,
) -> dict[str, Callable[[], Any]]:
    """The same mathematics with every hypothesis looked at: means from two half grids, in float64."""
    import torch

    half = features // 2
    grids = [
        torch.cartesian_prod(*[torch.arange(LEVELS, dtype=torch.float64)] * count).reshape(-1, count)
        for count in (half, features - half)
    ]

    def means(row: Any) -> Any:
        row = torch.as_tensor(row)
        return ((grids[0] @ row[:half])[:, None] + (grids[1] @ row[half:])[None, :]).reshape(-1)

    def observe(log_weight: Any, row: Any, outcome: float) -> Any:
        return log_weight - 0.5 * ((outcome - means(row)) / NOISE) ** 2

    log_weight = torch.zeros(LEVELS**features, dtype=torch.float64)
    for row, outcome in zip(rows, outcomes, strict=True):
        log_weight = observe(log_weight, row, float(outcome))
    log_posterior = log_weight - torch.logsumexp(log_weight, 0)

    def check() -> tuple[float, float]:
        harm = 0.5 * torch.erfc((threshold - means(action)) / (NOISE * math.sqrt(2.0)))
        members = log_posterior >= math.log(DELTA) - features * math.log(LEVELS)
        bound = torch.where(members, harm, 0.0).max()
        return float(bound), float((log_posterior.exp() * harm).sum())

    def observation() -> float:
        after = observe(log_weight, rows[0], float(outcomes[0]))
        return float((after - torch.logsumexp(after, 0)).max())

    bound, _ = check()
    if not abs(bound - expected) <= 1e-9 * max(1.0, expected):
        raise AssertionError(f"PyTorch finds {bound}, the oracle {expected}")
    return {"torch check": check, "torch observation": observation}


def _medians(functions: dict[str, Callable[[], Any]]) -> dict[str, float]:
    """Median seconds of each function, the functions taking turns."""
    first = {name: _seconds(function) for name, function in functions.items()}
    first = {name: _seconds(function) for name, function in functions.items()}
    repeats = {name: max(3, min(MOST_REPEATS, int(SECONDS / seconds))) for name, seconds in first.items()}
    times: dict[str, list[float]] = {name: [] for name in functions}
    for turn in range(max(repeats.values())):
        for name, function in functions.items():
            if turn < repeats[name]:
                times[name].append(_seconds(function))
    return {name: statistics.median(seconds) for name, seconds in times.items()}


def _seconds(function: Callable[[], Any]) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def main() -> None:
    """Print the table, or with --json the numbers."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.classes", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--exponents", type=int, nargs="+", default=EXPONENTS, help="sizes as powers of two, even")
    parser.add_argument("--device", choices=("cpu", "gpu"), default="cpu", help="where the oracle computes")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    arguments = parser.parse_args()
    results = run(tuple(arguments.exponents), arguments.device)
    print(json.dumps(results, indent=2) if arguments.json else report(results))


if __name__ == "__main__":
    main()
