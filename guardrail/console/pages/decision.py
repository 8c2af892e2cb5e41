"""One decision in full, in a dialog."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nicegui import ui

from guardrail.console.pages.frame import pairs_list, refusal, section, world_address
from guardrail.console.rows import decision_pairs, json_text, reason_pairs
from guardrail.console.words import decision_text
from guardrail.errors import GuardrailError

if TYPE_CHECKING:
    from guardrail.client.results import LoggedDecision
    from guardrail.console.desk import Desk


class Detail:
    """A dialog that shows decisions, one at a time."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._dialog: Any = ui.dialog().props('aria-label="Decision"')
        with self._dialog:
            self._card: Any = ui.element("div").classes("card")

    async def show(self, decision_id: str) -> None:
        """Ask for a decision and show it."""
        self._card.clear()
        try:
            one = await self._desk.decision(decision_id)
        except GuardrailError as error:
            with self._card:
                refusal(error)
        else:
            with self._card:
                decision_view(one)
        with self._card, ui.element("div").classes("buttons"):
            ui.button("Close", on_click=self._dialog.close).props("unelevated no-caps")
        self._dialog.open()


def decision_view(one: LoggedDecision) -> None:
    """Everything about a decision."""
    verdict = one.verdict
    ui.label(f"{decision_text(verdict)} — {verdict.policy} / {verdict.world}").classes("headline decision")
    if verdict.shadow:
        ui.label(
            "SHADOW: this policy only watches. The action was let through; enforced, it would be: "
            f"{verdict.found.value}."
        ).classes("shadow-note")
    with section("Why"):
        pairs_list(reason_pairs(verdict.reasons))
    if verdict.notices:
        with section("Notices"):
            pairs_list(reason_pairs(verdict.notices))
    with section("Decision"):
        pairs_list(decision_pairs(one))
        ui.link("Open the world", world_address(verdict.policy, verdict.world))
    if verdict.guarantee.assumptions:
        with section("The guarantee assumes"), ui.element("ul"):
            for assumption in verdict.guarantee.assumptions:
                with ui.element("li"):
                    ui.label(assumption)
    sent(one)


def sent(one: LoggedDecision) -> None:
    """Context and action, as the agent sent them: text, never markup."""
    with section("Action"), ui.element("pre"):
        ui.label(json_text(one.action))
    with section("Context"), ui.element("pre"):
        ui.label(json_text(one.context))
