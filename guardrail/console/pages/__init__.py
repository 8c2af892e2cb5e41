"""The pages: what NiceGUI shows. What is in them comes from `rows`, `charts` and `faults`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from nicegui import app as nicegui_app
from nicegui import core, ui

from guardrail.console.pages import budget, escalations, faults, live, world
from guardrail.console.pages.frame import House

if TYPE_CHECKING:
    from fastapi import FastAPI

__all__ = ["House", "add_to"]

STYLE = Path(__file__).parent / "pages.css"


def add_to(app: FastAPI, house: House) -> None:
    """Put the pages into an application. Once in a process: NiceGUI keeps pages in its modules."""
    config: Any = core.app.config
    config.socket_io_js_transports = ["websocket"]
    config.quasar_config["brand"]["primary"] = "#2f5f95"  # white text on it has a contrast of 6.5
    core.sio.eio.cors_allowed_origins = []  # the door lets the console's own pages in, and no header invites others
    nicegui_app.storage.max_tab_storage_age = 3_600.0
    ui.add_head_html(f"<style>{STYLE.read_text(encoding='utf-8')}</style>", shared=True)
    for part in (live, world, budget, escalations, faults):
        part.add_to(house)
    ui.run_with(
        app,
        title="Guardrail",
        favicon="data:image/svg+xml,<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 16 16'>"
        "<path d='M8 1l6 2v5c0 4-3 6-6 7-3-1-6-3-6-7V3z' fill='%235cc8ff'/></svg>",
        dark=True,
        language="en-US",
        reconnect_timeout=5.0,
        message_history_length=100,
        gzip_middleware_factory=None,  # the answer is compressed outside, after the nonce is in
        tailwind=False,
        show_welcome_message=False,
        storage_secret=None,  # nothing is stored in the browser or on disk
    )
