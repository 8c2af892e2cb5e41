"""What every HTTP request and every WebSocket passes before a page is made: names, origins, methods, and a session."""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qs, quote

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse, RedirectResponse, Response

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from guardrail.console.origins import Origins
    from guardrail.console.sessions import Session, Sessions

LOGIN, LOGOUT = "/login", "/logout"
SOCKET: Final = "/_nicegui_ws/"
STATIC: Final = "/_nicegui/"
PAGES: Final = re.compile(r"/|/(?:worlds|budgets|escalations|faults)|/world/[^/\\]+/[^\\]+")
"""The addresses of pages."""
MAX_PAGES: Final = 128
"""Most pages of one session that are open, or were asked for within the last minute."""

_HEADERS: Final[Mapping[str, str]] = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",  # with no-referrer a form would be sent with `Origin: null`
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
    "X-Robots-Tag": "noindex",
}
# Vue compiles its templates in the browser, which takes 'unsafe-eval'; it and Quasar set styles on elements. Scripts
# run only from this server or with the page's nonce, so markup that got into a page would run nothing.
_POLICY: Final = (
    "default-src 'none'; script-src 'self' 'nonce-{nonce}' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; font-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'self'; "
    "frame-ancestors 'none'"
)


class Door:
    """Lets in what may come in, and puts the headers on every answer.

    Args:
        app: what is behind it.
        origins: under which names it is reached.
        sessions: who is signed in.
        anyone: the session of everybody, where callers are not told apart; None if people sign in.
        port: in the cookie's name: cookies are not kept apart by port.
    """

    def __init__(self, app: ASGIApp, origins: Origins, sessions: Sessions, anyone: Session | None, port: int) -> None:
        self.app = app
        self._origins, self._sessions, self._anyone, self._port = origins, sessions, anyone, port
        self.owners: dict[str, Session] = {}

    def cookie(self, host: str) -> str:
        """The name of the session's cookie."""
        return f"{'__Host-' if self._origins.encrypted(host) else ''}guardrail-console-{self._port}"

    def session(self, scope: Scope) -> Session | None:
        """The session that a request belongs to; None if there is none."""
        if self._anyone is not None:
            return None if self._anyone.ended else self._anyone
        headers = Headers(scope=scope)
        return self._sessions.find(_cookies(headers).get(self.cookie(headers.get("host", ""))))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        # The path before the console is for nobody to choose: it is written into pages.
        scope["headers"] = [pair for pair in scope["headers"] if pair[0] != b"x-forwarded-prefix"]
        refusal = self._refusal(scope)
        if scope["type"] == "websocket":
            if refusal is None:
                await self.app(scope, receive, send)
            else:
                await receive()
                await send({"type": "websocket.close", "code": 1008})
            return
        page = _Page(send)
        await (self.app if refusal is None else refusal)(scope, receive, page.send)

    def _refusal(self, scope: Scope) -> Response | None:
        headers = Headers(scope=scope)
        host, origins, path = headers.get("host", ""), headers.getlist("origin"), scope["path"]
        if len(headers.getlist("host")) != 1 or not self._origins.knows_host(host):
            return _no(421, "HOST_UNKNOWN", "the console is not reached under this name; see --console-origin")
        socket = scope["type"] == "websocket"
        changing = not socket and scope["method"] not in ("GET", "HEAD")
        if len(origins) > 1 or any(not self._origins.knows_origin(one, host) for one in origins):
            return _no(403, "ORIGIN_UNKNOWN", "requests come from the console's own pages only")
        if (socket or changing) and not origins:
            return _no(403, "ORIGIN_MISSING", "the request does not say which page it comes from")
        if changing and (scope["method"] != "POST" or path not in (LOGIN, LOGOUT)):
            return _no(405, "METHOD_UNKNOWN", "there is nothing to change at this address")
        if not socket and path.startswith(SOCKET):
            return _no(404, "NOT_FOUND", "pages talk over a WebSocket only")
        if path == LOGIN and self._anyone is None:
            return None
        session = self.session(scope)
        if session is None:
            if socket or changing or path.startswith(STATIC):
                return _no(401, "CREDENTIALS_MISSING", "sign in first")
            return RedirectResponse(f"{LOGIN}?next={quote(path, safe='')}", 303)
        page = PAGES.fullmatch(path) is not None
        if not (socket or changing or page or path in (LOGIN, "/favicon.ico") or path.startswith(STATIC)):
            return _no(404, "NOT_FOUND", "there is no such page")
        if page and session.pages >= MAX_PAGES:
            return _no(
                429, "PAGES_LIMITED", f"{MAX_PAGES} pages of this session are open; close some, or wait a minute"
            )
        if socket and self.owners.get(_client(scope)) is not session:
            return _no(403, "PERMISSION_DENIED", "the page belongs to another session")
        return None


def _no(status: int, reason: str, message: str) -> Response:
    return PlainTextResponse(f"{reason}: {message}\n", status)


def _client(scope: Scope) -> str:
    values = parse_qs(scope.get("query_string", b"").decode("latin-1")).get("client_id", [])
    return values[0] if len(values) == 1 else ""


def _cookies(headers: Headers) -> Mapping[str, str]:
    pairs = (part.strip().partition("=") for line in headers.getlist("cookie") for part in line.split(";"))
    return {name: value for name, separator, value in pairs if separator}


class _Page:
    """Puts the headers on an answer, and a fresh nonce on the scripts of a page."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._nonce = secrets.token_urlsafe(16)
        self._start: Message | None = None
        self._body = b""

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(raw=message["headers"])
            for name, value in _HEADERS.items():
                headers[name] = value
            headers.setdefault("Content-Security-Policy", _POLICY.format(nonce=self._nonce))
            headers.setdefault("Cache-Control", "no-store")
            del headers["server"]
            if headers.get("x-nicegui-content") == "page":
                self._start = message  # the length is known once the nonce is in
                return
        elif self._start is not None and message["type"] == "http.response.body":
            self._body += message.get("body", b"")
            if message.get("more_body", False):
                return
            await self._send_page()
            return
        await self._send(message)

    async def _send_page(self) -> None:
        start: Any = self._start
        # What pages show is escaped by NiceGUI, so that only its own template holds this tag.
        body = self._body.replace(b"<script", f'<script nonce="{self._nonce}"'.encode())
        headers = MutableHeaders(raw=start["headers"])
        headers["content-length"] = str(len(body))
        self._start = None
        await self._send(start)
        await self._send({"type": "http.response.body", "body": body})
