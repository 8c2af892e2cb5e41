"""Decisions as they come."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastapi import Request
from nicegui import ui

from guardrail.console.charts import bounds_over_time
from guardrail.console.pages.decision import Detail
from guardrail.console.pages.frame import Frame, Freshness, House, frame, table
from guardrail.console.rows import Wanted, decision_rows

if TYPE_CHECKING:
    from guardrail.client.results import LoggedDecision

COLUMNS = (
    ("time", "Time"),
    ("decision", "Decision"),
    ("policy", "Policy"),
    ("world", "World"),
    ("bound", "Bound"),
    ("threshold", "Threshold"),
    ("reason", "Reason"),
    ("open", "Details"),
)
CHARTED = 200
"""Most points of the chart."""


def decisions_table(detail: Detail) -> Any:
    """An empty table of decisions; the button in a row opens its detail."""
    made = table(COLUMNS, [], "no decision yet")
    made.classes("decisions")
    made.add_slot(
        "body-cell-decision",
        '<q-td :props="props"><span :class="\'decision \' + props.row.kind">{{ props.row.decision }}</span></q-td>',
    )
    made.add_slot(
        "body-cell-open",
        '<q-td :props="props"><q-btn flat dense no-caps label="Open" :aria-label="\'Open decision \' + props.row.id" '
        "@click=\"() => $parent.$emit('open', props.row.id)\" /></q-td>",
    )
    made.on("open", lambda event: detail.show(str(event.args)))
    return made


class Live:
    """The page's moving parts."""

    def __init__(self, page: Frame) -> None:
        self._page = page
        self._paused = False
        self._logarithmic = False
        self._wanted = Wanted()
        self._version = -1
        self._seen: list[LoggedDecision] = []
        detail = Detail(page.desk)
        with ui.element("div").classes("controls"):
            self._policy = ui.select({"": "all policies"}, value="", label="Policy", on_change=self._filter)
            self._world = ui.input("World contains", on_change=self._filter).props("clearable debounce=300")
            self._pause = ui.button("Pause", on_click=self._toggle).props('unelevated no-caps aria-pressed="false"')
            self._log = ui.switch("Logarithmic", on_change=self._scale)
            self._stamp = ui.label("").classes("stamp").props('role="status"')
        self._area = ui.element("div").classes("live-data")
        with self._area:
            self._chart = ui.echart(
                bounds_over_time([], logarithmic=False), on_point_click=self._clicked(detail)
            ).classes("chart")
            self._table = decisions_table(detail)
        self._freshness = Freshness(self._stamp, self._area)
        self.look()
        page.each_tick(self.look)

    def _clicked(self, detail: Detail) -> Any:
        async def show(event: Any) -> None:
            if isinstance(event.data, dict) and isinstance(event.data.get("id"), str):
                await detail.show(event.data["id"])

        return show

    def look(self) -> None:
        """Show what is new."""
        feed = self._page.desk.feed
        wrong = self._page.faults()
        if feed.link.connected and not any(fault.code == "UNREACHABLE" for fault in wrong):
            self._freshness.known()
        else:
            self._freshness.stale(wrong[0].code if wrong else feed.link.reason)
        if self._paused:
            self._stamp.set_text(f"PAUSED — {self._stamp.text}")
        elif feed.version != self._version:
            self._version = feed.version
            self._seen = feed.newest()
            self._draw()
        if feed.link.gaps:
            self._stamp.set_text(f"{self._stamp.text} — more decisions than can be shown: the list has gaps")

    def _draw(self) -> None:
        policies = {one.verdict.policy for one in self._seen} | {self._wanted.policy} - {""}
        options = {"": "all policies", **{name: name for name in sorted(policies)}}
        if options != self._policy.options:
            self._policy.set_options(options, value=self._wanted.policy)
        shown = [one for one in self._seen if self._wanted.takes(one)]
        self._table.rows = decision_rows(shown)
        self._chart.options.update(bounds_over_time(shown[:CHARTED], logarithmic=self._logarithmic))
        self._chart.update()

    def _filter(self) -> None:
        self._wanted = Wanted(self._policy.value or "", self._world.value or "")
        self._draw()

    def _scale(self) -> None:
        self._logarithmic = bool(self._log.value)
        self._draw()

    def _toggle(self) -> None:
        self._paused = not self._paused
        self._pause.set_text("Go on" if self._paused else "Pause")
        self._pause.props(f'aria-pressed="{"true" if self._paused else "false"}"')
        self.look()


def add_to(house: House) -> None:
    """Add the page."""

    @ui.page("/")
    def live(request: Request) -> None:
        with frame(house, request, "Live decisions", "/") as page:
            Live(page)
