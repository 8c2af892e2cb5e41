"""The shape of a callers file (`guardrail/callers/v1`): types, limits and what each field means."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from pydantic import Field

from guardrail.policy.schema_base import Model

MAX_CALLERS = 1_000
MAX_KEYS = 10
MAX_GRANTS = 100

ClaimValue: TypeAlias = str | int | bool
Text = Annotated[str, Field(min_length=1, max_length=500)]
Glob = Annotated[str, Field(min_length=1, max_length=128, description="`*`, `?` and `[abc]` as in a shell")]
Algorithm = Literal["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"]


class JwtSpec(Model):
    """Whose tokens count. Only signatures that need a private key: nobody who can check one can make one."""

    issuer: Text = Field(description="the token's `iss`, exactly")
    audience: Text = Field(description="what the token's `aud` must hold")
    keys: Text = Field(description="a JWKS file, from the folder of this file; read again when it changed")
    algorithms: Annotated[tuple[Algorithm, ...], Field(min_length=1, max_length=10)] = ("RS256", "ES256", "EdDSA")


class GrantSpec(Model):
    """Roles for some policies and worlds."""

    roles: Annotated[
        tuple[Literal["agent", "reporter", "approver", "operator", "viewer"], ...], Field(min_length=1, max_length=5)
    ]
    policies: Annotated[tuple[Glob, ...], Field(min_length=1, max_length=MAX_GRANTS)]
    worlds: Annotated[tuple[Glob, ...], Field(min_length=1, max_length=MAX_GRANTS)]


class LimitsSpec(Model):
    """What one caller may use up, in each replica."""

    requests_per_second: Annotated[float, Field(gt=0, le=1e6, allow_inf_nan=False)] | None = None
    burst: Annotated[int, Field(ge=1, le=1_000_000)] | None = Field(
        None, description="requests at once; requests_per_second, at least 1, if left out"
    )
    worlds: Annotated[int, Field(ge=0, le=1_000_000)] | None = Field(
        None, description="most worlds that its reports may bring into being"
    )


class CallerSpec(Model):
    """Somebody who may ask: how it is known, and what it may do."""

    name: Annotated[
        str,
        Field(
            pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$",
            description="letters, digits, '.', '_' and '-', at most 63, starting with a letter or digit",
        ),
    ]
    keys: Annotated[tuple[str, ...], Field(max_length=MAX_KEYS)] = Field(
        (), description="hashes of static keys, as `guardrail keys new` prints them; several while one is replaced"
    )
    jwt: Annotated[dict[Text, ClaimValue], Field(min_length=1, max_length=20)] | None = Field(
        None, description="claims that a token must have, all of them; a claim that is a list must hold the value"
    )
    certificate: Text | None = Field(
        None,
        description="a URI or DNS name of a verified client certificate, or the common name of one without such names",
    )
    grants: Annotated[tuple[GrantSpec, ...], Field(min_length=1, max_length=MAX_GRANTS)]
    limits: LimitsSpec | None = None


class CallersSpec(Model):
    """Who may ask, and what."""

    schema_: Literal["guardrail/callers/v1"] = Field(alias="schema")
    jwt: JwtSpec | None = None
    callers: Annotated[tuple[CallerSpec, ...], Field(min_length=1, max_length=MAX_CALLERS)]
