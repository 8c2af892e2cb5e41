"""Worlds and their posteriors as rows of tables: texts for people, made of the service's reply."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from guardrail.console.rows import Pairs, parameters_text
from guardrail.console.words import date_and_clock, guarantee_text, number, span
from guardrail.wire import guarantee_from_proto

if TYPE_CHECKING:
    from guardrail.v1 import guardrail_pb2 as pb


def world_pairs(world: pb.World) -> Pairs:
    """A world at a glance."""
    guarantee = guarantee_from_proto(world.guarantee)
    pairs = [
        ("State", "REFUTED: no hypothesis is plausible, every check is rejected" if world.refuted else "in use"),
        ("Observations", str(world.posterior_revision)),
        ("Generation", str(world.generation or 1)),
        ("Guarantee", guarantee_text(guarantee)),
    ]
    pairs += [("Assumes", assumption) for assumption in guarantee.assumptions]
    if guarantee.source:
        pairs.append(("Proved by", guarantee.source))
    if world.HasField("class_size"):
        plausible = f", {world.plausible} plausible" if world.HasField("plausible") else ""
        pairs.append(("Hypotheses", f"{world.class_size}{plausible}"))
    if world.HasField("entropy"):
        effective = number(math.exp(min(world.entropy, 700.0)))
        pairs.append(("Entropy", f"{number(world.entropy)} nats: as if {effective} hypotheses were equally probable"))
    return [*pairs, ("Policy revision", world.policy_revision[:12])]


def hypothesis_rows(world: pb.World) -> list[dict[str, str]]:
    """The most probable hypotheses; whether one is plausible is said in words."""
    return [
        {
            "id": str(place),
            "name": one.name,
            "mass": number(math.exp(one.log_posterior)),
            "plausible": plausible_text(world, one),
            "parameters": parameters_text(dict(sorted(one.parameters.items()))) or "–",
        }
        for place, one in enumerate(world.hypotheses)
    ]


def plausible_text(world: pb.World, one: pb.Hypothesis) -> str:
    """Whether bounds rest on a hypothesis."""
    if not world.HasField("plausible"):
        return "–"
    return "● plausible" if one.plausible else "○ ruled out"


def parameter_rows(world: pb.World) -> list[dict[str, str]]:
    """The parameters of a continuous class."""
    return [
        {
            "id": str(place),
            "name": one.name,
            "mean": number(one.mean),
            "deviation": number(one.deviation),
            "plausible": f"{_end(one, 'plausible_low')} to {_end(one, 'plausible_high')}",
        }
        for place, one in enumerate(world.parameters)
    ]


def calibration_pairs(world: pb.World) -> Pairs:
    """What was promised and predicted against what was reported."""
    if not world.HasField("calibration"):
        return []
    told = world.calibration
    alarm = "✕ ALARM: the bounds, or the reports, are wrong" if told.alarm else "✓ no alarm"
    pairs = [
        ("Alarm", alarm),
        (
            "Compared",
            f"{told.outcomes} outcomes, {told.harms} of them harm; their bounds add up to {number(told.bounds)}",
        ),
        (
            "Evidence against the bounds",
            f"log e-value {number(told.log_e_value)} now, {number(told.log_e_peak)} at most, alarm at "
            f"{number(told.log_e_alarm)} nats",
        ),
    ]
    if told.HasField("predicted"):
        pairs.append(("Predicted harm, mean", number(told.predicted)))
        if told.HasField("harm_low") and told.HasField("harm_high"):
            pairs.append(("Reported harm, mean", f"between {number(told.harm_low)} and {number(told.harm_high)}"))
    return pairs


def awaited_pairs(world: pb.World, now: float) -> Pairs:
    """Outcomes that accepted actions owe."""
    if not world.HasField("awaited"):
        return []
    told = world.awaited
    state = f"✕ {told.overdue} OVERDUE" if told.overdue else "✓ none overdue"
    pairs = [
        ("Overdue", f"{state}; an overdue outcome means: {told.overdue_action.replace('_', ' ')}"),
        ("Awaited", f"{told.awaited}, each due {span(told.within_seconds)} after its decision"),
    ]
    if told.HasField("oldest_due"):
        due = told.oldest_due.ToSeconds()
        when = f"{span(now - due)} ago" if due < now else f"in {span(due - now)}"
        pairs.append(("Oldest due", f"{date_and_clock(float(due))} ({when})"))
    if told.assumed_harms:
        pairs.append(("Taken for harm", f"{told.assumed_harms} overdue outcomes: bounds promise nothing any more"))
    if told.overdue_decisions:
        pairs.append(("Overdue decisions", ", ".join(told.overdue_decisions)))
    return pairs


def _end(parameter: pb.Parameter, name: Any) -> str:
    return number(getattr(parameter, name)) if parameter.HasField(name) else "unknown"
