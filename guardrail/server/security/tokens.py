"""JSON Web Tokens: who signed them, for whom, until when, and which entry of the callers file they match."""

from __future__ import annotations

import hashlib
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jwt

from guardrail.errors import Unauthenticated
from guardrail.server.security.callers_file import Entry, JwtSettings
from guardrail.server.security.grants import Caller
from guardrail.server.security.key_set import KeySet
from guardrail.server.security.schema import ClaimValue

MAX_BYTES = 8_192
"""Longest token that is looked at."""
MAX_CACHED = 10_000
"""Most tokens whose signature is remembered as checked."""
MAX_SUBJECT = 256
FAR = 2**53
"""A time that is never reached, in seconds since the epoch."""
LEEWAY_SECONDS = 10
"""How far the issuer's clock may be ahead of this one, for `nbf` and `iat`. Nothing is added to `exp`."""


@dataclass(frozen=True, slots=True)
class Identity:
    """Who a token says its bearer is.

    Attributes:
        entry: of the callers file.
        caller: with the name that the log and the limits know it by.
        expires: seconds since the epoch.
    """

    entry: Entry
    caller: Caller
    expires: float


class Tokens:
    """Checks tokens against a callers file. Call it from one thread.

    Args:
        settings: whose tokens count.
        entries: those of the callers file that tokens can match.
        now: seconds since the epoch.
        clock: seconds, monotonic.

    :raises SecurityInvalid: if the issuer's keys cannot be read.
    """

    def __init__(
        self,
        settings: JwtSettings,
        entries: Sequence[Entry],
        now: Callable[[], float] = time.time,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings, self._entries, self._now = settings, entries, now
        self._keys = KeySet(settings.keys, clock)
        self._checked: OrderedDict[bytes, Identity] = OrderedDict()
        self._version = self._keys.version

    def identify(self, token: str) -> Identity:
        """Who a token says its bearer is, if everything about it is right.

        :raises Unauthenticated: CREDENTIALS_EXPIRED if its time is over or has not come, CREDENTIALS_INVALID if
            anything else is wrong. The message never holds the token.
        """
        if len(token) > MAX_BYTES:
            raise Unauthenticated(f"the token is longer than {MAX_BYTES} bytes")
        self._keys.refresh()
        if self._keys.version != self._version:
            self._forget()
        name = hashlib.sha256(token.encode()).digest()
        found = self._checked.get(name)
        if found is None:
            found = self._check(token)
            if self._keys.version != self._version:
                self._forget()  # an unknown key had the file read again
            self._checked[name] = found
            if len(self._checked) > MAX_CACHED:
                self._checked.popitem(last=False)
        else:
            self._checked.move_to_end(name)
        if not self._now() < found.expires:
            self._checked.pop(name, None)
            raise Unauthenticated("the token has expired; get a new one", "CREDENTIALS_EXPIRED")
        return found

    def _forget(self) -> None:
        self._checked.clear()
        self._version = self._keys.version

    def _check(self, token: str) -> Identity:
        try:
            header = jwt.get_unverified_header(token)
        except (jwt.PyJWTError, ValueError, RecursionError) as error:
            raise Unauthenticated("the credential is neither a key nor a token") from error
        algorithm, kid = header.get("alg"), header.get("kid")
        if algorithm not in self._settings.algorithms:
            raise Unauthenticated(f"the token's alg is not accepted; accepted: {', '.join(self._settings.algorithms)}")
        if not isinstance(kid, str):
            raise Unauthenticated("the token names no key: its header has no kid")
        key = self._keys.find(kid)
        if key is None or algorithm not in key.algorithms:
            raise Unauthenticated("the token names a key that the issuer does not have, or not for its alg")
        return self._match(self._claims(token, key.key, algorithm))

    def _claims(self, token: str, key: Any, algorithm: str) -> Mapping[str, Any]:
        try:
            claims: dict[str, Any] = jwt.decode(
                token,
                key,
                algorithms=[algorithm],
                issuer=self._settings.issuer,
                audience=self._settings.audience,
                leeway=LEEWAY_SECONDS,
                options={"require": ["iss", "aud", "exp", "sub"]},
            )
        except jwt.ExpiredSignatureError as error:
            raise Unauthenticated("the token has expired; get a new one", "CREDENTIALS_EXPIRED") from error
        except jwt.ImmatureSignatureError as error:
            raise Unauthenticated("the token is not valid yet; compare the clocks", "CREDENTIALS_EXPIRED") from error
        except jwt.InvalidIssuerError as error:
            raise Unauthenticated(f"the token's iss is not {self._settings.issuer}") from error
        except jwt.InvalidAudienceError as error:
            raise Unauthenticated(f"the token's aud does not name {self._settings.audience}") from error
        except jwt.MissingRequiredClaimError as error:
            raise Unauthenticated(f"the token has no {error.claim}") from error
        except (jwt.PyJWTError, ValueError, TypeError, OverflowError, RecursionError) as error:
            raise Unauthenticated("the token is not valid") from error
        return claims

    def _match(self, claims: Mapping[str, Any]) -> Identity:
        subject = claims["sub"]
        if not isinstance(subject, str) or not 0 < len(subject) <= MAX_SUBJECT or not subject.isprintable():
            raise Unauthenticated(f"the token's sub is not 1 to {MAX_SUBJECT} printable characters")
        fitting = [e for e in self._entries if all(_holds(claims, name, value) for name, value in e.claims)]
        if len(fitting) != 1:
            which = "several callers" if fitting else "no caller"
            raise Unauthenticated(f"the token's claims match {which} of the callers file")
        entry = fitting[0]
        shared = "sub" not in dict(entry.claims)
        caller = replace(entry.caller, name=f"{entry.caller.name}/{subject}") if shared else entry.caller
        return Identity(entry, caller, float(min(int(claims["exp"]), FAR)))


def _holds(claims: Mapping[str, Any], name: str, value: ClaimValue) -> bool:
    """True if a claim is the value, or is a list that holds it. 1, true and "1" are three values."""
    claim = claims.get(name)
    return any(type(one) is type(value) and one == value for one in (claim if isinstance(claim, list) else [claim]))
