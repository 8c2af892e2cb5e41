"""Static keys: random, shown once, kept as hashes."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Sequence

PREFIX = "grk_"
"""What every key begins with, so that leaked ones can be searched for."""
KEY_BYTES = 32
"""Random bytes in a key: 256 bits cannot be guessed, so a plain SHA-256 of it can lie in a file."""
HASH = re.compile(r"sha256:[0-9a-f]{64}")
"""The form of a hash in a callers file."""


def new_key() -> str:
    """A fresh key."""
    return PREFIX + secrets.token_urlsafe(KEY_BYTES)


def hash_line(key: str) -> str:
    """What a callers file holds instead of a key: `sha256:` and 64 hexadecimal digits."""
    return "sha256:" + hashlib.sha256(key.encode()).hexdigest()


def find(key: str, hashes: Sequence[str]) -> int | None:
    """The place of a key's hash among others; None if it is not there.

    Each one is compared, in constant time: how long it takes tells neither how much of a guess is right nor
    which caller it belongs to.
    """
    own = hash_line(key)
    found = None
    for place, other in enumerate(hashes):
        if hmac.compare_digest(own, other):
            found = place
    return found
