"""Escalated actions: what waits for a person, and what became of the others."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from fastapi import Request
from nicegui import ui

from guardrail.approvals import EscalationState
from guardrail.console.pages.decision import sent
from guardrail.console.pages.frame import Frame, Freshness, House, frame, pairs_list, refusal, section, table
from guardrail.console.rows import decision_pairs, escalation_pairs, escalation_rows, reason_pairs
from guardrail.console.words import span
from guardrail.errors import GuardrailError

if TYPE_CHECKING:
    from guardrail.client.results import EscalatedAction

REFRESH_SECONDS = 2.0
MAX_NOTE = 500
COLUMNS = (
    ("time", "Escalated"),
    ("state", "State"),
    ("policy", "Policy"),
    ("world", "World"),
    ("caller", "Asked by"),
    ("approver", "Resolved by"),
    ("note", "Note"),
)


class Resolving:
    """The dialog in which a person confirms what it is about to say."""

    def __init__(self, page: Frame, done: Any) -> None:
        self._page, self._done = page, done
        self._one: EscalatedAction | None = None
        self._approve = False
        with ui.dialog().props('persistent aria-label="Confirm"') as self._dialog, ui.element("div").classes("card"):
            self._question = ui.label("").classes("headline")
            self._what: Any = ui.element("div")
            self._note = ui.textarea("Note for the record").props(f"maxlength={MAX_NOTE} autogrow").classes("note")
            self._error: Any = ui.element("div")
            with ui.element("div").classes("buttons"):
                ui.button("Back", on_click=self._dialog.close).props("unelevated no-caps")
                self._confirm = ui.button("", on_click=self._resolve).props("unelevated no-caps")

    def ask(self, one: EscalatedAction, *, approve: bool) -> None:
        """Ask whether the person means it."""
        self._one, self._approve = one, approve
        verb = "Approve" if approve else "Deny"
        self._question.set_text(f"{verb} this action?")
        self._confirm.set_text(f"{'✓' if approve else '✕'} {verb} it")
        self._note.set_value("")
        self._error.clear()
        self._what.clear()
        with self._what:
            pairs_list([("Policy", one.policy), ("World", one.world), ("Digest", one.digest)])
        self._dialog.open()

    async def _resolve(self) -> None:
        one = self._one
        if one is None:
            return
        self._confirm.disable()
        try:
            note = (self._note.value or "")[:MAX_NOTE]
            await self._page.desk.resolve(one.escalation_id, one.digest, approve=self._approve, note=note)
        except GuardrailError as error:
            self._error.clear()
            with self._error:
                refusal(error)
        else:
            self._dialog.close()
            ui.notify(f"{'✓ approved' if self._approve else '✕ denied'}: {one.policy}, {one.world}", color="dark")
        finally:
            self._confirm.enable()
        await self._done()


class Escalations:
    """The page's moving parts. What is on the screen changes only when there is something new."""

    def __init__(self, page: Frame) -> None:
        self._page = page
        self._shown: list[tuple[str, EscalationState]] | None = None
        self._clocks: list[tuple[Any, float]] = []
        self._resolving = Resolving(page, self.refresh)
        self._stamp = ui.label("").classes("stamp").props('role="status"')
        self._place: Any = ui.element("div")
        self._area = ui.element("div").classes("live-data")
        with self._area:
            self._waiting: Any = section("Waiting for a person")
            with self._waiting:
                self._cards: Any = ui.element("div")
            with section("Resolved"):
                self._table = table(COLUMNS, [], "nothing was resolved yet")
        self._freshness = Freshness(self._stamp, self._area)
        page.each_tick(self._count_down)
        ui.timer(REFRESH_SECONDS, self.refresh)

    async def refresh(self) -> None:
        """Ask what waits."""
        try:
            found = await self._page.desk.escalations(None)
        except GuardrailError as error:
            self._freshness.stale(error.reason)
            if self._shown is None:
                self._place.clear()
                with self._place:
                    refusal(error)
            return
        self._place.clear()
        self._freshness.known()
        signature = [(one.escalation_id, one.state) for one in found]
        if signature != self._shown:
            self._shown = signature
            self._draw(found)

    def _draw(self, found: list[EscalatedAction]) -> None:
        self._clocks = []
        self._cards.clear()
        pending = [one for one in found if one.state is EscalationState.PENDING]
        with self._cards:
            if not pending:
                ui.label("Nothing waits.")
            for one in sorted(pending, key=lambda each: each.expires_at):
                self._card(one)
        self._table.rows = escalation_rows(one for one in found if one.state is not EscalationState.PENDING)
        self._count_down()

    def _card(self, one: EscalatedAction) -> None:
        with ui.element("section").classes("pending").props(f'data-escalation="{_safe(one.escalation_id)}"'):
            with ui.element("div").classes("controls"):
                ui.label(f"▲ ESCALATED {one.policy} / {one.world}").classes("headline")
                clock = ui.label("").classes("stamp")
                self._clocks.append((clock, one.expires_at.timestamp()))
                for approve, label in ((True, "✓ Approve"), (False, "✕ Deny")):
                    ui.button(label, on_click=lambda _, yes=approve: self._resolving.ask(one, approve=yes)).props(
                        "unelevated no-caps"
                    )
            if one.decision is None:
                pairs_list(escalation_pairs(one))
                ui.label("The decision that escalated was lost in a crash: what was asked is not known.")
                return
            with ui.element("div").classes("columns"):
                with ui.element("div"):
                    pairs_list(escalation_pairs(one))
                    pairs_list(reason_pairs(one.decision.verdict.reasons))
                    with ui.expansion("Everything about the decision").props("dense"):
                        pairs_list(decision_pairs(one.decision))
                with ui.element("div"):
                    sent(one.decision)

    def _count_down(self) -> None:
        now = time.time()
        for label, expires in self._clocks:
            label.set_text(f"expires in {span(expires - now)}" if expires > now else "✕ EXPIRED")


def _safe(text: str) -> str:
    """What may stand in a property: an id is hexadecimal digits and hyphens."""
    return "".join(letter for letter in text if letter.isalnum() or letter in "-_")


def add_to(house: House) -> None:
    """Add the page."""

    @ui.page("/escalations", response_timeout=10.0)
    async def escalations(request: Request) -> None:
        with frame(house, request, "Escalations", "/escalations") as page:
            await Escalations(page).refresh()
