"""Harm budgets: what a session, or the window of a world, has spent."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastapi import Request
from nicegui import ui

from guardrail.console.charts import budget_bar, spent_over_time
from guardrail.console.pages.frame import Frame, Freshness, House, frame, pairs_list, refusal, section, table
from guardrail.console.pages.live import CHARTED
from guardrail.console.rows import budget_rows, session_pairs
from guardrail.errors import GuardrailError

if TYPE_CHECKING:
    from guardrail.client.results import LoggedDecision, SessionState

REFRESH_SECONDS = 2.0
COLUMNS = (
    ("policy", "Policy"),
    ("world", "World"),
    ("session", "Session"),
    ("spent", "Spent"),
    ("total", "Total"),
    ("open", "Show"),
)


class Budgets:
    """The page's moving parts."""

    def __init__(self, page: Frame) -> None:
        self._page = page
        self._asked: tuple[str, str, str] | None = None
        self._version = -1
        self._told: SessionState | None = None
        self._before: list[LoggedDecision] = []
        with ui.element("div").classes("controls"):
            self._policy = ui.input("Policy")
            self._world = ui.input("World")
            self._session = ui.input("Session").props('hint="empty: the window"')
            ui.button("Show", on_click=self._show).props("unelevated no-caps")
            self._stamp = ui.label("").classes("stamp").props('role="status"')
        self._area = ui.element("div").classes("live-data")
        self._freshness = Freshness(self._stamp, self._area)
        with section("Budgets of the newest decisions"):
            self._table = table(COLUMNS, [], "no decision drew on a budget yet")
            self._table.add_slot(
                "body-cell-open",
                '<q-td :props="props"><q-btn flat dense no-caps label="Show" '
                ":aria-label=\"'Show ' + props.row.session\" "
                "@click=\"() => $parent.$emit('open', [props.row.policy, props.row.world, props.row.name])\" /></q-td>",
            )
            self._table.on("open", self._choose)
        self._follow()
        page.each_tick(self._follow)
        ui.timer(REFRESH_SECONDS, self._refresh)

    async def _choose(self, event: Any) -> None:
        chosen = event.args
        if not (isinstance(chosen, list) and len(chosen) == 3 and all(isinstance(part, str) for part in chosen)):
            return
        for field, text in zip((self._policy, self._world, self._session), chosen, strict=True):
            field.set_value(text)
        await self._show()

    async def _show(self) -> None:
        self._asked = (self._policy.value or "", self._world.value or "", self._session.value or "")
        self._told = None
        policy, world, _ = self._asked
        self._before = await self._page.desk.decisions(policy, world, CHARTED) if policy and world else []
        await self._refresh()

    async def _refresh(self) -> None:
        asked = self._asked
        if asked is None:
            return
        try:
            state = await self._page.desk.session(*asked)
        except GuardrailError as error:
            if self._told is None:
                self._area.clear()
                with self._area:
                    refusal(error)
            else:
                self._freshness.stale(error.reason)
            return
        if asked != self._asked:
            return
        self._freshness.known()
        if state != self._told:
            self._told = state
            self._draw(state)

    def _draw(self, state: SessionState) -> None:
        self._area.clear()
        with self._area, ui.element("div").classes("columns"):
            with section("Spent"):
                ui.echart(budget_bar(state.budget.spent, state.budget.total)).classes("chart low flat spent")
                pairs_list(session_pairs(state))
            with section("Over time"):
                decisions = self._page.desk.feed.about(state.policy, state.world, self._before)
                ui.echart(spent_over_time(decisions, state.budget.session)).classes("chart flat")
                ui.label("As far as its decisions are among the newest of this world.").classes("muted")

    def _follow(self) -> None:
        feed = self._page.desk.feed
        if feed.version != self._version:
            self._version = feed.version
            self._table.rows = budget_rows(feed.newest())


def add_to(house: House) -> None:
    """Add the page."""

    @ui.page("/budgets")
    def budgets(request: Request) -> None:
        with frame(house, request, "Budgets", "/budgets") as page:
            Budgets(page)
