"""Reads and checks a callers file. Everything wrong is found in one run, with its position; no secret is repeated."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from guardrail.awaiting import ASSUMED_BY
from guardrail.errors import PolicyError, Problem, SecurityInvalid
from guardrail.policy import wording
from guardrail.policy.document import Document, in_order
from guardrail.policy.yaml_source import read_document, read_file
from guardrail.server.security import keys
from guardrail.server.security.grants import Caller, Grant, Role
from guardrail.server.security.rate import Rate
from guardrail.server.security.schema import CallerSpec, CallersSpec, ClaimValue


@dataclass(frozen=True, slots=True)
class JwtSettings:
    """Whose tokens count; see `schema.JwtSpec`."""

    issuer: str
    audience: str
    keys: Path
    algorithms: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of the file.

    Attributes:
        caller: who it is and what it may do.
        hashes: of its static keys.
        claims: what a token of it holds; empty if it has none.
        certificate: a name in its client certificate; None if it has none.
    """

    caller: Caller
    hashes: tuple[str, ...]
    claims: tuple[tuple[str, ClaimValue], ...]
    certificate: str | None


@dataclass(frozen=True, slots=True)
class Callers:
    """A callers file that was read."""

    entries: tuple[Entry, ...]
    jwt: JwtSettings | None

    @property
    def needs_client_ca(self) -> bool:
        """True if a caller is known by its certificate."""
        return any(entry.certificate is not None for entry in self.entries)


def read_callers(path: Path) -> Callers:
    """Read a callers file.

    :raises SecurityInvalid: if it cannot be read or is wrong; holds every problem.
    """
    try:
        document = read_document(read_file(path), str(path))
    except PolicyError as error:
        raise SecurityInvalid(problems=error.problems) from error
    problems = list(document.problems)
    data = document.root.data()
    problems += _keys_in_the_clear(document, data)
    spec = None
    try:
        spec = CallersSpec.model_validate(data)
    except ValidationError as error:
        found = error.errors(include_url=False, include_input=False)
        problems += wording.problems(document, CallersSpec, found)
    if spec is not None:
        problems += _across(document, spec)
    if problems or spec is None:
        raise SecurityInvalid(problems=in_order(document, problems))
    jwt = spec.jwt
    settings = None
    if jwt is not None:
        settings = JwtSettings(jwt.issuer, jwt.audience, path.parent / jwt.keys, jwt.algorithms)
    return Callers(tuple(map(_entry, spec.callers)), settings)


def _keys_in_the_clear(document: Document, data: dict[Any, Any]) -> Iterator[Problem]:
    """What is no hash, taken out of the data: it may be a key, which no message may show."""
    callers = data.get("callers")
    for place, caller in enumerate(callers if isinstance(callers, tuple) else ()):
        if not isinstance(caller, dict) or "keys" not in caller:
            continue
        listed = caller["keys"]
        if not isinstance(listed, tuple):
            yield document.problem(("callers", place, "keys"), "keys is no list; needs a list of hashes")
            listed = ()
        wrong = [i for i, key in enumerate(listed) if not (isinstance(key, str) and keys.HASH.fullmatch(key))]
        for index in wrong:
            message = (
                "not the hash of a key; needs 'sha256:' and 64 lower-case hexadecimal digits, as `guardrail keys new` "
                "prints them. If a key stands here, it is known now: replace it"
            )
            yield document.problem(("callers", place, "keys", index), message)
        caller["keys"] = tuple(key for i, key in enumerate(listed) if i not in wrong)


def _across(document: Document, spec: CallersSpec) -> Iterator[Problem]:
    names: dict[str, int] = {}
    hashes: dict[str, str] = {}
    certificates: dict[str, str] = {}
    claims: list[tuple[str, frozenset[tuple[str, str, ClaimValue]]]] = []
    for place, caller in enumerate(spec.callers):
        route = ("callers", place)
        if caller.name in names:
            yield document.problem((*route, "name"), f"another caller is called {caller.name!r} too; rename one")
        if caller.name == ASSUMED_BY:
            yield document.problem(
                (*route, "name"), f"the service itself reports as {caller.name!r}; take another name"
            )
        names[caller.name] = place
        if not (caller.keys or caller.jwt or caller.certificate):
            node = document.nearest((*route, "keys"))
            message = f"{caller.name} has no credential; give it keys, jwt or certificate"
            if node.kind != "sequence" or not node.items:
                yield document.problem(route, message)
        limits = caller.limits
        if limits is not None and limits.burst is not None and limits.requests_per_second is None:
            yield document.problem((*route, "limits", "burst"), "burst limits nothing without requests_per_second")
        for index, key in enumerate(caller.keys):
            if key in hashes:
                message = f"{hashes[key]} has this key too; a key belongs to one caller, once"
                yield document.problem((*route, "keys", index), message)
            hashes[key] = caller.name
        if caller.certificate is not None:
            if caller.certificate in certificates:
                message = f"{certificates[caller.certificate]} has this certificate too; a name belongs to one caller"
                yield document.problem((*route, "certificate"), message)
            certificates[caller.certificate] = caller.name
        if caller.jwt is None:
            continue
        if spec.jwt is None:
            message = "no tokens are accepted; say at the top whose: jwt: {issuer: ..., audience: ..., keys: ...}"
            yield document.problem((*route, "jwt"), message)
        own = frozenset((name, type(value).__name__, value) for name, value in caller.jwt.items())
        for other, theirs in claims:
            if own <= theirs or theirs <= own:
                message = f"a token of {other} can match these claims too; name a claim that tells them apart"
                yield document.problem((*route, "jwt"), message)
        claims.append((caller.name, own))


def _entry(spec: CallerSpec) -> Entry:
    grants = tuple(Grant(frozenset(map(Role, g.roles)), g.policies, g.worlds) for g in spec.grants)
    limits, rate, worlds = spec.limits, None, None
    if limits is not None:
        worlds = limits.worlds
        if limits.requests_per_second is not None:
            burst = limits.burst or max(1.0, limits.requests_per_second)
            rate = Rate(limits.requests_per_second, burst)
    caller = Caller(spec.name, grants, rate, worlds)
    return Entry(caller, spec.keys, tuple(sorted((spec.jwt or {}).items())), spec.certificate)
