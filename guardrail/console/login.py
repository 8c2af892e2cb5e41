"""Signing in and out: plain forms without scripts. A credential comes in the body of a POST and goes nowhere else."""

from __future__ import annotations

import html
import secrets
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qs

from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Route

from guardrail.console.door import LOGIN, LOGOUT, PAGES
from guardrail.console.sessions import SIGNED_OUT, SessionsFull
from guardrail.errors import GuardrailError, Unauthenticated

if TYPE_CHECKING:
    from guardrail.console.door import Door
    from guardrail.console.origins import Origins
    from guardrail.console.sessions import Attempts, Sessions

STYLE: Final = (Path(__file__).parent / "login.css").read_text(encoding="utf-8")
MAX_BODY: Final = 16 * 2**10
"""As many bytes as the service takes in a call's metadata."""

WHYS: Final = {
    "SIGNED_OUT": "You are signed out.",
    "SESSION_EXPIRED": "The session is over. Sign in again.",
    "SESSION_REPLACED": "This credential signed in elsewhere too often. Sign in again.",
    "CONSOLE_CLOSED": "The console was stopped. Sign in again.",
    "CREDENTIALS_MISSING": "Give a key or a token.",
    "CREDENTIALS_INVALID": "The service does not know this credential.",
    "CREDENTIALS_EXPIRED": "The token has expired.",
    "LOGIN_LIMITED": "Too many attempts failed. Wait a minute.",
    "SESSIONS_FULL": "Too many people are signed in.",
    "SERVICE_UNREACHABLE": "The service does not answer now.",
}
"""Why one is asked to sign in: a stable code -> what it says."""


def routes(door: Door, origins: Origins, sessions: Sessions, attempts: Attempts) -> list[Route]:
    """The routes of signing in and out."""

    async def form(request: Request) -> Response:
        why = request.query_params.get("why", "")
        return _page(why if why in WHYS else "", _local(request.query_params.get("next", "")))

    async def sign_in(request: Request) -> Response:
        address = request.client.host if request.client else ""
        body = b""
        async for chunk in request.stream():
            body += chunk
            if len(body) > MAX_BODY:
                return _page("CREDENTIALS_INVALID", "/", 413)
        fields = parse_qs(body.decode("utf-8", "replace"), max_num_fields=4)
        token, target = fields.get("token", [""])[0].strip(), _local(fields.get("next", [""])[0])
        if not attempts.allowed(address):
            return _page("LOGIN_LIMITED", target, 429)
        if not token:
            return _page("CREDENTIALS_MISSING", target, 401)
        try:
            name, session = sessions.open(token)
        except SessionsFull:
            return _page("SESSIONS_FULL", target, 503)
        except ValueError:  # it holds what no header may
            attempts.failed(address)
            return _page("CREDENTIALS_INVALID", target, 401)
        try:
            await session.desk.policies()
        except Unauthenticated as error:
            attempts.failed(address)
            sessions.end(session, error.reason)
            return _page(error.reason, target, 401)
        except GuardrailError:
            sessions.end(session, "SERVICE_UNREACHABLE")
            return _page("SERVICE_UNREACHABLE", target, 503)
        host = request.headers["host"]
        answer = RedirectResponse(target, 303)
        answer.set_cookie(
            door.cookie(host), name, secure=origins.encrypted(host), httponly=True, samesite="strict", path="/"
        )
        return answer

    async def sign_out(request: Request) -> Response:
        session = door.session(request.scope)
        if session is not None:
            sessions.end(session, SIGNED_OUT)
        host = request.headers["host"]
        answer = RedirectResponse(f"{LOGIN}?why={SIGNED_OUT}", 303)
        answer.delete_cookie(
            door.cookie(host), secure=origins.encrypted(host), httponly=True, samesite="strict", path="/"
        )
        return answer

    return [
        Route(LOGIN, form, methods=["GET"]),
        Route(LOGIN, sign_in, methods=["POST"]),
        Route(LOGOUT, sign_out, methods=["POST"]),
    ]


def _local(target: str) -> str:
    """Where to go next: a page of the console, never another site."""
    return target if PAGES.fullmatch(target) and "//" not in target and ".." not in target else "/"


def _page(why: str, target: str, status: int = 200) -> Response:
    nonce = secrets.token_urlsafe(16)
    alert = f'<p role="alert" class="why"><strong>{why}</strong> {html.escape(WHYS[why])}</p>' if why in WHYS else ""
    body = f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Sign in · Guardrail</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="data:,"><style nonce="{nonce}">{STYLE}</style></head>
<body><main><h1>Guardrail</h1><p>Sign in with a key or token of the service's callers. What you see and may do is what
its grants allow.</p>{alert}
<form method="post" action="{LOGIN}" autocomplete="off">
<input type="hidden" name="next" value="{html.escape(target, quote=True)}">
<label for="token">Key or token</label>
<input id="token" name="token" type="password" autocomplete="off" spellcheck="false" autofocus required>
<button type="submit">Sign in</button></form>
<p class="small">The credential stays in the memory of the server until you sign out.</p></main></body></html>"""
    policy = (
        f"default-src 'none'; style-src 'nonce-{nonce}'; img-src data:; base-uri 'none'; form-action 'self'; "
        "frame-ancestors 'none'"
    )
    return HTMLResponse(body, status, {"Content-Security-Policy": policy})
