"""What is around every page: where one is, where one can go, what is wrong, and how old what is shown is."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from fastapi import Request
from nicegui import ui

from guardrail.console import faults
from guardrail.console.door import LOGIN, LOGOUT
from guardrail.console.words import clock
from guardrail.errors import GuardrailError, PermissionDenied

if TYPE_CHECKING:
    from guardrail.console.door import Door
    from guardrail.console.pulse import Pulse
    from guardrail.console.rows import Pairs
    from guardrail.console.sessions import Session, Sessions

NAVIGATION = (
    ("Live", "/"),
    ("Worlds", "/worlds"),
    ("Budgets", "/budgets"),
    ("Escalations", "/escalations"),
    ("Faults", "/faults"),
)
TICK_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class House:
    """What pages share.

    Attributes:
        sessions: who is signed in.
        pulse: how the service is.
        door: says which session a request belongs to.
        signs_in: False if callers are not told apart.
    """

    sessions: Sessions
    pulse: Pulse
    door: Door
    signs_in: bool


class Frame:
    """One open page.

    Attributes:
        session: whose it is.
        desk: asks the service for it.
    """

    def __init__(self, house: House, session: Session) -> None:
        self._house, self.session, self.desk = house, session, session.desk
        self._banner: Any = None
        self._shown: list[faults.Fault] | None = None
        self._ticks: list[Callable[[], None]] = []

    def each_tick(self, do: Callable[[], None]) -> None:
        """Do something every second while the page is open."""
        self._ticks.append(do)

    def faults(self) -> list[faults.Fault]:
        """What is wrong now, for the banner."""
        return [
            *faults.of_health(self._house.pulse.beat, time.time()),
            *faults.of_link(self.desk.feed.link),
        ]

    @property
    def beat(self) -> Any:
        """What the service said of its health."""
        return self._house.pulse.beat

    def lay_banner(self) -> None:
        """Make the place of the banner."""
        self._banner = ui.element("div").classes("banner").props('role="alert" aria-live="assertive"')
        self._review()

    def tick(self) -> None:
        """Look at what changed; leave if the session is over."""
        if self.session.ended is not None:
            ui.navigate.to(f"{LOGIN}?why={quote(self.session.ended)}")
            return
        self._review()
        for do in self._ticks:
            do()

    def _review(self) -> None:
        now = self.faults()
        codes = [fault.code for fault in now]
        if self._shown is not None and codes == [fault.code for fault in self._shown] and "UNREACHABLE" not in codes:
            return
        self._shown = now
        self._banner.clear()
        self._banner.set_visibility(bool(now))
        with self._banner:
            for fault in now:
                with ui.element("p"):
                    ui.label(f"{'✕ BLOCKING' if fault.stops else '▲ ATTENTION'} {fault.code}").classes("code")
                    ui.label(fault.text)


@contextlib.contextmanager
def frame(house: House, request: Request, title: str, here: str) -> Iterator[Frame]:
    """Lay out a page, and make its content inside.

    Args:
        house: what pages share.
        request: for the page.
        title: of the page.
        here: the address in the navigation that it belongs to.
    """
    session = house.door.session(request.scope)
    assert session is not None  # the door lets nobody else in
    client = ui.context.client
    client.title = f"{title} · Guardrail"
    house.door.owners[client.id] = session
    session.pages += 1

    def gone() -> None:
        house.door.owners.pop(client.id, None)
        session.pages -= 1

    client.on_delete(gone)
    session.desk.feed.start()
    page = Frame(house, session)
    with ui.element("a").props('href="#content"').classes("skip"):
        ui.label("Skip to the content")
    with ui.element("header").classes("top"):
        ui.label("Guardrail").classes("brand")
        with ui.element("nav").props('aria-label="Pages"'):
            for name, address in NAVIGATION:
                current = ' aria-current="page"' if address == here else ""
                with ui.element("a").props(f'href="{address}"{current}').classes("nav"):
                    ui.label(name)
        if house.signs_in:
            with (
                ui.element("form").props(f'method="post" action="{LOGOUT}"').classes("out"),
                ui.element("button").props('type="submit"'),
            ):
                ui.label("Sign out")
        else:
            ui.label("callers are not told apart").classes("out muted")
    page.lay_banner()
    with ui.element("div").props('id="content" tabindex="-1"').classes("content"):
        with ui.element("h1"):
            ui.label(title)
        yield page
    ui.timer(TICK_SECONDS, page.tick)


class Freshness:
    """Says as of when something is known, and marks it as stale when it cannot be asked for any more.

    Args:
        area: what is grey while it is stale.
    """

    def __init__(self, stamp: Any, area: Any) -> None:
        self._stamp, self._area, self._at = stamp, area, 0.0

    def known(self) -> None:
        """It was just answered."""
        self._at = time.time()
        self._stamp.set_text(f"as of {clock(self._at)}")
        self._area.classes(remove="stale")
        self._stamp.classes(remove="stale-word")

    def stale(self, reason: str) -> None:
        """It cannot be asked for now."""
        heard = f"as of {clock(self._at)}" if self._at else "never heard"
        self._stamp.set_text(f"STALE — {heard} ({reason})")
        self._area.classes(add="stale")
        self._stamp.classes(add="stale-word")


async def or_refused(ask: Callable[[], Awaitable[Any]], place: Any) -> Any:
    """What the service answers; if it refuses, its stable reason is shown in a place, and None is given.

    The page's HTTP status says so too.
    """
    try:
        return await ask()
    except GuardrailError as error:
        place.clear()
        with place:
            refusal(error)
        if not ui.context.client.has_socket_connection:
            ui.context.client.status_code = 403 if isinstance(error, PermissionDenied) else status_of(error)
        return None


def status_of(error: GuardrailError) -> int:
    """The HTTP status of a page that cannot show what it is about."""
    return 404 if error.reason.endswith("_NOT_FOUND") else 503


def refusal(error: GuardrailError) -> None:
    """An error of the service, with its stable reason."""
    with ui.element("div").classes("refusal").props('role="alert"'):
        if isinstance(error, PermissionDenied):
            ui.label("Nothing here for you").classes("headline")
        with ui.element("p"):
            ui.label(error.reason).classes("code")
            ui.label(str(error).removeprefix(f"{error.reason}: "))


def pairs_list(pairs: Pairs) -> None:
    """Names and texts, one under the other."""
    with ui.element("dl"):
        for name, text in pairs:
            with ui.element("dt"):
                ui.label(name)
            with ui.element("dd"):
                ui.label(text)


def section(title: str) -> Any:
    """A part of a page with a heading."""
    part = ui.element("section")
    with part, ui.element("h2"):
        ui.label(title)
    return part


def table(columns: Sequence[tuple[str, str]], rows: list[dict[str, str]], empty: str) -> Any:
    """A table of texts; Quasar escapes what is in its cells."""
    made = ui.table(
        columns=[{"name": n, "label": label, "field": n, "align": "left"} for n, label in columns],
        rows=rows,
        row_key="id",
    )
    made.props(f'flat dense hide-pagination :rows-per-page-options="[0]" no-data-label="{empty}"')
    return made


def world_address(policy: str, world: str) -> str:
    """The address of a world's page."""
    return f"/world/{quote(policy, safe='')}/{quote(world, safe=':@')}"
