"""What an approval binds: the action and everything around it, as one digest."""

from __future__ import annotations

import hashlib

import rfc8785

from guardrail.canonical import plain
from guardrail.domain import JsonObject
from guardrail.errors import InvalidInput


def binding(policy: str, policy_revision: str, world: str, context: JsonObject, action: JsonObject) -> str:
    """SHA-256 (hexadecimal) over the canonical JSON (RFC 8785) of all that an approval holds for.

    To RFC 8785 equal numbers are one number: 1 and 1.0, 0.0 and -0.0.

    :raises InvalidInput: if the context or the action has no canonical JSON: NaN, an infinity, broken Unicode.
    """
    bound = {
        "action": action,
        "context": context,
        "policy": policy,
        "policy_revision": policy_revision,
        "world": world,
    }
    try:
        return hashlib.sha256(rfc8785.dumps(plain(bound))).hexdigest()
    except (rfc8785.CanonicalizationError, UnicodeError) as error:
        raise InvalidInput(f"what is asked has no canonical JSON: {error}", "NOT_FINITE") from error
