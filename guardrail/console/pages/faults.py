"""What is wrong: health by parts, notices, and worlds that need somebody."""

from __future__ import annotations

import time
from typing import Any

from fastapi import Request
from nicegui import ui

from guardrail.console import faults
from guardrail.console.faults import Fault
from guardrail.console.pages.frame import Frame, Freshness, House, frame, section, table, world_address
from guardrail.errors import GuardrailError, PermissionDenied, WorldNotFound

MAX_LOOKED_AT = 40
"""Most worlds that are looked at: those of the newest decisions first."""
REFRESH_SECONDS = 15.0


class Faults:
    """The page's moving parts."""

    def __init__(self, page: Frame) -> None:
        self._page = page
        self._stamp = ui.label("").classes("stamp").props('role="status"')
        with section("Health"):
            self._area = ui.element("div").classes("live-data")
            with self._area:
                columns = (("part", "Part"), ("state", "State"), ("text", "What it means"))
                self._parts = table(columns, [], "the service did not answer yet").classes("wrap")
        self._freshness = Freshness(self._stamp, self._area)
        with section("Notices"):
            self._notices: Any = ui.element("div")
        with section("Worlds"):
            self._looked = ui.label("").classes("muted")
            self._worlds: Any = ui.element("div")
        self._told: list[Fault] | None = None
        self._follow()
        page.each_tick(self._follow)
        ui.timer(REFRESH_SECONDS, self._look, immediate=False)

    def _follow(self) -> None:
        beat, now = self._page.beat, time.time()
        stale = bool(faults.of_health(beat, now)) and bool(beat.why or now - beat.at > faults.STALE_SECONDS)
        rows = faults.part_rows(beat.parts, stale=stale)
        if rows != self._parts.rows:
            self._parts.rows = rows
        if stale:
            self._freshness.stale("UNREACHABLE")
        else:
            self._freshness.known()
        notices = [*faults.of_link(self._page.desk.feed.link), *faults.of_notices(self._page.desk.feed.newest())]
        if notices != self._told:
            self._told = notices
            _list(self._notices, [(fault, None) for fault in notices], "✓ The newest decisions note nothing.")

    async def first_look(self) -> None:
        """Look at the worlds before the page is sent."""
        await self._look()

    async def _look(self) -> None:
        desk = self._page.desk
        found: list[tuple[Fault, str | None]] = []
        names = dict.fromkeys((one.verdict.policy, one.verdict.world) for one in desk.feed.newest())
        try:
            names |= dict.fromkeys((one.policy, one.world) for one in await desk.worlds())
        except GuardrailError as error:
            self._looked.set_text(f"Worlds cannot be listed: {error.reason}")
        looked = list(names)[:MAX_LOOKED_AT]
        for policy, name in looked:
            try:
                world = await desk.world(policy, name)
            except (PermissionDenied, WorldNotFound):
                continue
            except GuardrailError as error:
                found.append((Fault(error.reason, f"{policy} / {name}: {error}"), world_address(policy, name)))
            else:
                address = world_address(policy, name)
                found += [(fault, address) for fault in faults.of_world(policy, name, world)]
        rest = f"; {len(names) - len(looked)} more were not" if len(names) > len(looked) else ""
        self._looked.set_text(f"{len(looked)} worlds were looked at{rest}.")
        _list(self._worlds, found, "✓ Nothing is wrong with them.")


def _list(place: Any, found: list[tuple[Fault, str | None]], nothing: str) -> None:
    place.clear()
    with place:
        if not found:
            ui.label(nothing)
        for fault, address in found:
            with ui.element("div").classes("refusal"), ui.element("p"):
                ui.label(f"✕ {fault.code}").classes("code")
                ui.label(fault.text)
                if address is not None:
                    ui.link("Open the world", address)


def add_to(house: House) -> None:
    """Add the page."""

    @ui.page("/faults", response_timeout=30.0)
    async def page_of_faults(request: Request) -> None:
        with frame(house, request, "Faults", "/faults") as page:
            shown = Faults(page)
            await ui.context.client.connected()
            await shown.first_look()
