"""Charts as ECharts options. Nothing that an agent sent is a key of them, nor a template, nor HTML: tooltips are drawn.

A key that begins with a colon would be run as a program by the browser's side of NiceGUI, so keys are constants here.
Whatever differs in colour differs in shape, pattern or words, too.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final

from guardrail.console.words import number
from guardrail.domain import Decision

if TYPE_CHECKING:
    from guardrail.client.results import LoggedDecision
    from guardrail.v1 import guardrail_pb2 as pb

Options = dict[str, Any]

TEXT, MUTED, GRID = "#e8edf4", "#b3bfce", "#3a4556"
COLOURS: Final = {Decision.ACCEPT: "#5cc8ff", Decision.ESCALATE: "#ffc857", Decision.REJECT: "#ff8a9a"}
SHAPES: Final = {
    Decision.ACCEPT: "circle",
    Decision.ESCALATE: "triangle",
    Decision.REJECT: "path://M0,2 L2,0 L5,3 L8,0 L10,2 L7,5 L10,8 L8,10 L5,7 L2,10 L0,8 L3,5 Z",
}
FLOOR: Final = 1e-6
"""Where smaller probabilities are drawn on a logarithmic axis."""


def _base(description: str, *, patterns: bool = True) -> Options:
    return {
        "animation": False,
        "textStyle": {"color": TEXT, "fontFamily": "inherit"},
        "aria": {"enabled": True, "label": {"description": description}, "decal": {"show": patterns}},
        "tooltip": {
            "renderMode": "richText",
            "confine": True,
            "backgroundColor": "#0c1016",
            "borderColor": MUTED,
            "textStyle": {"color": TEXT},
        },
        "legend": {"top": 0, "textStyle": {"color": TEXT}, "itemGap": 18, "icon": None},
        "grid": {"left": 62, "right": 24, "top": 40, "bottom": 36},
    }


def _axis(kind: str, name: str = "", **more: Any) -> Options:
    return {
        "type": kind,
        "name": name,
        "nameLocation": "middle",
        "nameGap": 44,
        "nameTextStyle": {"color": MUTED},
        "axisLabel": {"color": MUTED},
        "axisLine": {"lineStyle": {"color": MUTED}},
        "splitLine": {"lineStyle": {"color": GRID}},
        **more,
    }


def bounds_over_time(decisions: Iterable[LoggedDecision], *, logarithmic: bool) -> Options:
    """Harm bounds against their thresholds: one point a decision, its shape says which."""
    points: dict[tuple[Decision, bool], list[Any]] = {
        (kind, shadow): [] for shadow in (False, True) for kind in Decision
    }
    threshold: list[Any] = []
    for one in sorted(decisions, key=lambda each: each.decided_at):
        verdict, at = one.verdict, round(one.decided_at.timestamp() * 1e3)
        name = f"{verdict.found.value}{' (shadow)' if verdict.shadow else ''} · {verdict.policy} · {verdict.world}"
        points[verdict.found, verdict.shadow].append(
            {"value": [at, _height(verdict.harm_bound, logarithmic)], "name": name, "id": verdict.decision_id}
        )
        threshold.append([at, _height(verdict.threshold, logarithmic)])
    options = _base(
        "Harm bounds of the newest decisions over time, against the threshold above which is rejected.", patterns=False
    )
    options["xAxis"] = _axis("time", nameGap=24, splitLine={"show": False})
    scale = {"min": FLOOR, "max": 1} if logarithmic else {"min": 0, "max": 1}
    options["yAxis"] = _axis("log" if logarithmic else "value", "probability of harm", **scale)
    options["series"] = [
        {
            "type": "scatter",
            "name": kind.value + (" (shadow)" if shadow else ""),
            "symbol": SHAPES[kind],
            "symbolSize": 12,
            "itemStyle": {
                "color": "transparent" if shadow else COLOURS[kind],
                "borderColor": COLOURS[kind],
                "borderWidth": 2 if shadow else 0,
            },
            "data": data,
        }
        for (kind, shadow), data in points.items()
    ]
    options["series"].append(
        {
            "type": "line",
            "name": "threshold",
            "step": "end",
            "symbol": "none",
            "lineStyle": {"type": "dashed", "width": 2, "color": TEXT},
            "itemStyle": {"color": TEXT},
            "data": threshold,
        }
    )
    return options


def _height(probability: float, logarithmic: bool) -> float | None:
    if not math.isfinite(probability):
        return None
    return max(probability, FLOOR) if logarithmic else probability


_STRIPES: Final = {"symbol": "rect", "dashArrayX": [1, 0], "dashArrayY": [3, 4], "rotation": -0.785, "color": "#0c1016"}
_DOTS: Final = {
    "symbol": "circle",
    "symbolSize": 0.6,
    "dashArrayX": [[6, 6], [0, 6, 6, 0]],
    "dashArrayY": [6, 0],
    "color": "#0c1016",
}
_PLAIN: Final = {"symbol": "none"}


def posterior(world: pb.World) -> Options:
    """The most probable hypotheses by their mass; those that bounds rest on are striped and say so."""
    shown = list(world.hypotheses)[:30]
    known = world.HasField("plausible")
    options = _base("Posterior mass of the most probable hypotheses; plausible ones are those that bounds rest on.")
    # Long names go aside: they are in the table below.
    options["grid"] = {"left": 150, "right": 90, "top": 40, "bottom": 36}
    options["xAxis"] = _axis("value", "posterior mass", min=0, max=1, nameGap=24)
    labels = [_short(one.name) for one in shown]
    options["yAxis"] = _axis(
        "category", data=labels, inverse=True, axisLabel={"color": TEXT, "width": 130, "overflow": "truncate"}
    )
    inside = "plausible" if known else "hypotheses"
    groups = [(inside, COLOURS[Decision.ACCEPT], _STRIPES, True)]
    groups.append(("ruled out", MUTED, _DOTS, False))
    options["series"] = [
        {
            "type": "bar",
            "name": name,
            "stack": "mass",
            "color": colour,
            "itemStyle": {"color": colour, "decal": decal},
            "label": {"show": True, "position": "right", "color": TEXT, "formatter": "{@[2]}"},
            "data": [
                {
                    "value": math.exp(one.log_posterior),
                    "label": {
                        "formatter": f"{number(math.exp(one.log_posterior))} {'●' if one.plausible and known else ''}"
                    },
                }
                if (one.plausible or not known) is wanted
                else None
                for one in shown
            ],
        }
        for name, colour, decal, wanted in groups
    ]
    return options


def parameters(world: pb.World) -> Options:
    """Posterior mean of each parameter with two standard deviations, and the plausible range as a longer, thin bar."""
    shown = list(world.parameters)[:30]
    options = _base(
        "Posterior means of the parameters, with two standard deviations and their plausible ranges.", patterns=False
    )
    options["grid"] = {"left": 150, "right": 40, "top": 40, "bottom": 36}
    options["xAxis"] = _axis("value", "value", scale=True, nameGap=24)
    options["yAxis"] = _axis(
        "category", data=[_short(one.name) for one in shown], inverse=True, axisLabel={"color": TEXT}
    )
    plausible: list[Any] = []
    spread: list[Any] = []
    for place, one in enumerate(shown):
        low, high = one.plausible_low, one.plausible_high
        if (
            one.HasField("plausible_low")
            and one.HasField("plausible_high")
            and math.isfinite(low)
            and math.isfinite(high)
        ):
            plausible += [[low, place], [high, place], None]
        spread += [[one.mean - 2 * one.deviation, place], [one.mean + 2 * one.deviation, place], None]
    options["series"] = [
        _strokes("plausible range", plausible, COLOURS[Decision.ESCALATE], 3, "dashed"),
        _strokes("mean ± 2 deviations", spread, COLOURS[Decision.ACCEPT], 8, "solid"),
        {
            "type": "scatter",
            "name": "mean",
            "symbol": "diamond",
            "symbolSize": 14,
            "itemStyle": {"color": TEXT},
            "data": [[one.mean, place] for place, one in enumerate(shown)],
        },
    ]
    return options


def _strokes(name: str, data: Sequence[Any], colour: str, width: int, kind: str) -> Options:
    return {
        "type": "line",
        "name": name,
        "symbol": "none",
        "connectNulls": False,
        "lineStyle": {"width": width, "color": colour, "type": kind},
        "itemStyle": {"color": colour},
        "data": data,
    }


def budget_bar(spent: float, total: float) -> Options:
    """What is spent of a budget, and what is left."""
    left = max(0.0, total - spent)
    options = _base(f"{number(spent)} of {number(total)} is spent, {number(left)} is left.")
    options["grid"] = {"left": 24, "right": 32, "top": 40, "bottom": 36}
    options["xAxis"] = _axis("value", min=0, max=max(total, spent), nameGap=24)
    options["yAxis"] = _axis("category", data=[""])
    options["series"] = [
        {
            "type": "bar",
            "name": f"{name} {number(value)}",
            "stack": "budget",
            "barWidth": 46,
            "itemStyle": {"color": colour, "decal": decal, "borderColor": TEXT, "borderWidth": 1},
            "data": [value],
        }
        for name, value, colour, decal in (
            ("spent", spent, COLOURS[Decision.ESCALATE], _STRIPES),
            ("left", left, COLOURS[Decision.ACCEPT], _PLAIN),
        )
    ]
    return options


def spent_over_time(decisions: Iterable[LoggedDecision], session: str) -> Options:
    """What was spent after each decision of a session, or with an empty name of the window."""
    told = [
        (round(one.decided_at.timestamp() * 1e3), one.verdict.budget)
        for one in sorted(decisions, key=lambda each: each.decided_at)
        if one.verdict.budget is not None and one.verdict.budget.session == session
    ]
    options = _base("What was spent of the budget after each decision, against the total.", patterns=False)
    options["xAxis"] = _axis("time", nameGap=24, splitLine={"show": False})
    options["yAxis"] = _axis("value", "sum of harm bounds", min=0)
    options["series"] = [
        {
            "type": "line",
            "name": "spent",
            "step": "end",
            "symbol": "circle",
            "symbolSize": 8,
            "lineStyle": {"color": COLOURS[Decision.ESCALATE], "width": 2},
            "itemStyle": {"color": COLOURS[Decision.ESCALATE]},
            "data": [[at, budget.spent] for at, budget in told],
        },
        {
            "type": "line",
            "name": "total",
            "symbol": "none",
            "lineStyle": {"color": TEXT, "width": 2, "type": "dashed"},
            "itemStyle": {"color": TEXT},
            "data": [[at, budget.total] for at, budget in told],
        },
    ]
    return options


def evidence(world: pb.World) -> Options:
    """Evidence against the bounds, now and at its peak, against where there is an alarm."""
    told = world.calibration
    options = _base("Log e-value against the bounds: now, its peak, and where there is an alarm.")
    options["legend"] = {"show": False}
    options["grid"] = {"left": 110, "right": 70, "top": 12, "bottom": 36}
    values = (("now", told.log_e_value), ("peak", told.log_e_peak), ("alarm at", told.log_e_alarm))
    options["xAxis"] = _axis("value", "nats", nameGap=24)
    options["yAxis"] = _axis("category", data=[name for name, _ in values], inverse=True, axisLabel={"color": TEXT})
    decals = (_PLAIN, _STRIPES, _DOTS)
    colours = (COLOURS[Decision.ACCEPT], COLOURS[Decision.ESCALATE], COLOURS[Decision.REJECT])
    options["series"] = [
        {
            "type": "bar",
            "name": "log e-value",
            "data": [
                {
                    "value": value if math.isfinite(value) else None,
                    "itemStyle": {"color": colour, "decal": decal},
                    "label": {"show": True, "position": "right", "color": TEXT, "formatter": number(value)},
                }
                for (_, value), colour, decal in zip(values, colours, decals, strict=True)
            ],
        }
    ]
    return options


def _short(name: str) -> str:
    return name if len(name) <= 40 else f"{name[:39]}…"
