"""The launches before Challenger, in date order, and then the one at 31 degrees Fahrenheit."""

from __future__ import annotations

import csv
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.table import Table

from simulations.demo.screen import decision_text, live, number_text

if TYPE_CHECKING:
    from pathlib import Path

    from rich.console import Console

    from guardrail import Client, Verdict

POLICY = "oring-launch"
WORLD = "challenger"
LAUNCH_TEMPERATURE_F = 31.0
_PAUSE = 0.08
"""Seconds between flights on a terminal, so that a person can watch the belief move."""


@dataclass(frozen=True, slots=True)
class Flight:
    """One flight of the record (Dalal, Fowlkes and Hoadley 1989)."""

    number: int
    joint_temperature_f: float
    damaged: bool


def read_flights(path: Path) -> list[Flight]:
    """The flights of a CSV file with the columns flight, joint_temperature_f, damaged."""
    with path.open(encoding="utf-8", newline="") as file:
        return [
            Flight(int(row["flight"]), float(row["joint_temperature_f"]), row["damaged"] == "1")
            for row in csv.DictReader(file)
        ]


def play(client: Client, flights: list[Flight], console: Console) -> Verdict:
    """Check each flight, then report what came of it; the verdict on the launch at 31 °F."""
    table = Table(
        "flight", "joint °F", "decision", "harm bound", "predictive", "outcome", title="Flights before Challenger"
    )
    table.caption = "Every flight took place; the guardrail was asked first and told afterwards."
    with live(table, console) as redraw:
        for flight in flights:
            context = {"joint_temperature_f": flight.joint_temperature_f}
            verdict = client.check(policy=POLICY, world=WORLD, context=context, action={})
            client.report(
                policy=POLICY,
                world=WORLD,
                context=context,
                action={},
                outcome={"damaged": flight.damaged},
                observation_id=f"flight-{flight.number}",
            )
            table.add_row(
                str(flight.number),
                f"{flight.joint_temperature_f:g}",
                decision_text(verdict),
                number_text(verdict.harm_bound),
                number_text(verdict.predictive_harm),
                "[red]O-ring damage[/]" if flight.damaged else "no damage",
            )
            redraw()
            if console.is_terminal:
                time.sleep(_PAUSE)
    return client.check(policy=POLICY, world=WORLD, context={"joint_temperature_f": LAUNCH_TEMPERATURE_F}, action={})
