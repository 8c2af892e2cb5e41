"""Write batches.csv: 24 synthetic batches of a reactor that never existed.

Run from anywhere: `python policies/reactor-temperature/make_batches.py`. Only `random()` of Python's
generator is used, whose stream is the same in every version.
"""

from __future__ import annotations

import csv
import random
from pathlib import Path
from statistics import NormalDist

SEED = 1986
BATCHES = 24
NOISE_SD_C = 1.5
WEIGHTS = {"baseline": 3.0, "charge": 3.1, "heat_load": 5.6, "jacket": 9.8}
"""The generating coefficients: degC for each unit of the policy's features."""

SETTINGS = {
    "jacket_temperature_c": (30.0, 50.0),
    "charge_kg": (300.0, 700.0),
    "feed_rate_l_h": (60.0, 140.0),
    "coolant_flow_m3_h": (3.0, 6.0),
}
"""Each setting is uniform on its range, rounded to one decimal."""

FIXED = {"stirrer_running": 1, "catalyst_lot_released": 1}


def peak_temperature_c(jacket: float, charge: float, feed: float, coolant: float) -> float:
    """Mean peak temperature in degC under the generating coefficients."""
    return (
        WEIGHTS["baseline"]
        + WEIGHTS["charge"] * charge / 100.0
        + WEIGHTS["heat_load"] * feed / coolant / 10.0
        + WEIGHTS["jacket"] * jacket / 10.0
    )


def batches() -> list[dict[str, float]]:
    """The rows of batches.csv, in order."""
    uniform, noise = random.Random(SEED), NormalDist(0.0, NOISE_SD_C)  # noqa: S311 (not for secrets)
    rows: list[dict[str, float]] = []
    for batch in range(1, BATCHES + 1):
        row = {name: round(lower + (upper - lower) * uniform.random(), 1) for name, (lower, upper) in SETTINGS.items()}
        peak = peak_temperature_c(*row.values()) + noise.inv_cdf(uniform.random())
        rows.append({"batch": batch, **row, **FIXED, "peak_temperature_c": round(peak, 1)})
    return rows


def main() -> None:
    """Write the file beside this one."""
    with (Path(__file__).parent / "batches.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(batches()[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(batches())


if __name__ == "__main__":
    main()
