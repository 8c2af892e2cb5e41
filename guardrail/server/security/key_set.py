"""The issuer's public keys: a JWKS file, read again when it changed."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jwt
import structlog
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed448 import Ed448PublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from guardrail.errors import SecurityInvalid
from guardrail.server.security.files import Stamp, stamp

log = structlog.get_logger()

MAX_BYTES = 2**20
MAX_KEYS = 100
MIN_RSA_BITS = 2_048
LOOK_SECONDS = 1.0
"""How often the file is looked at: a key that was taken out stops working within this time."""

_CURVES = {"secp256r1": "ES256", "secp384r1": "ES384", "secp521r1": "ES512"}
_RSA = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")


class PublicKey:
    """One key, and the algorithms that may be used with it.

    Attributes:
        key: what PyJWT verifies with.
        algorithms: those that fit its type and what the file says of it.
    """

    __slots__ = ("algorithms", "key")

    def __init__(self, key: Any, algorithms: frozenset[str]) -> None:
        self.key, self.algorithms = key, algorithms


class KeySet:
    """The keys of a JWKS file. Call it from one thread.

    Args:
        path: of the file.
        clock: seconds, monotonic.

    :raises SecurityInvalid: if the file cannot be read or holds no usable set.
    """

    def __init__(self, path: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self._path, self._clock = path, clock
        self._stamp: Stamp | None = stamp(path)
        self._keys = read_key_set(path)
        self._looked = clock()
        self.version = 0
        """Grows whenever other keys were read."""

    def refresh(self) -> None:
        """Read the file again if it changed, looking at most every LOOK_SECONDS. A broken one keeps the last good."""
        if self._clock() - self._looked >= LOOK_SECONDS:
            self._look()

    def find(self, kid: str) -> PublicKey | None:
        """The key of that id; None if there is none. An unknown id has the file looked at at once."""
        if kid not in self._keys:
            self._look()
        return self._keys.get(kid)

    def _look(self) -> None:
        self._looked = self._clock()
        found = stamp(self._path)
        if found == self._stamp:
            return
        self._stamp = found
        try:
            self._keys = read_key_set(self._path)
        except SecurityInvalid as error:
            log.error("token_keys_not_read", why=str(error), kept=sorted(self._keys))
            return
        self.version += 1
        log.info("token_keys_read", path=str(self._path), keys=sorted(self._keys))


def read_key_set(path: Path) -> Mapping[str, PublicKey]:
    """The keys of a JWKS file by their id. Keys for encryption, and of types that sign nothing here, are left out.

    :raises SecurityInvalid: if the file cannot be read, is no JWKS, holds a private or shared key, a weak one, one
        without an id, two of the same id, or none that is usable.
    """
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise SecurityInvalid(f"{path}: cannot be read: {error.strerror}") from error
    if len(content) > MAX_BYTES:
        raise SecurityInvalid(f"{path}: larger than {MAX_BYTES} bytes")
    try:
        listed = json.loads(content)["keys"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise SecurityInvalid(f'{path}: not a JWKS; needs JSON such as {{"keys": [...]}}') from error
    if not isinstance(listed, list) or not all(isinstance(key, dict) for key in listed) or len(listed) > MAX_KEYS:
        raise SecurityInvalid(f"{path}: not a JWKS; needs a list of at most {MAX_KEYS} keys")
    keys: dict[str, PublicKey] = {}
    for place, data in enumerate(listed):
        where = f"{path}: keys[{place}]"
        kid = data.get("kid")
        if data.get("kty") == "oct" or "d" in data or "k" in data:
            raise SecurityInvalid(f"{where}: a private or shared key; only public keys belong here, replace this one")
        if data.get("use", "sig") != "sig":
            continue
        if not isinstance(kid, str) or not kid:
            raise SecurityInvalid(f"{where}: has no kid, so no token can name it")
        if kid in keys:
            raise SecurityInvalid(f"{where}: another key has the kid {kid!r} too")
        key = _public_key(data, where)
        if key is not None:
            keys[kid] = key
    if not keys:
        raise SecurityInvalid(f"{path}: holds no usable key; needs an RSA, EC or Ed25519 key for signatures")
    return keys


def _public_key(data: dict[str, Any], where: str) -> PublicKey | None:
    try:
        key = jwt.PyJWK(data).key
    except jwt.PyJWTError:
        return None  # of a type or for an algorithm that is not known here
    if isinstance(key, RSAPublicKey):
        if key.key_size < MIN_RSA_BITS:
            raise SecurityInvalid(f"{where}: RSA of {key.key_size} bits; needs {MIN_RSA_BITS}")
        fitting = frozenset(_RSA)
    elif isinstance(key, EllipticCurvePublicKey):
        fitting = frozenset(filter(None, [_CURVES.get(key.curve.name)]))
    elif isinstance(key, Ed25519PublicKey | Ed448PublicKey):
        fitting = frozenset(["EdDSA"])
    else:
        return None
    stated = data.get("alg")
    algorithms = fitting if stated is None else fitting & {stated}
    return PublicKey(key, algorithms) if algorithms else None
