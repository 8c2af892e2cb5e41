"""Files of Ed25519 keys, in PEM: private ones sign the decision log, public ones verify it."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from guardrail.errors import SecurityInvalid

if TYPE_CHECKING:
    from pathlib import Path


def write_private_key(path: Path) -> Ed25519PrivateKey:
    """Make a key and keep it in a new file (PKCS #8) that its owner only can read.

    :raises SecurityInvalid: if the file is there already or cannot be written.
    """
    key = Ed25519PrivateKey.generate()
    content = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    try:
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise SecurityInvalid(f"{path}: cannot be written: {error.strerror}") from error
    return key


def read_private_key(path: Path) -> Ed25519PrivateKey:
    """The key of a file.

    :raises SecurityInvalid: if it cannot be read, others than its owner can read it, or it is no Ed25519 key.
    """
    content = _content(path)
    require_private(path)
    try:
        key = load_pem_private_key(content, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise SecurityInvalid(f"{path}: not an unencrypted private key in PEM (PKCS #8)") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise SecurityInvalid(f"{path}: not an Ed25519 key; make one with `guardrail keys signing FILE`")
    return key


def read_public_key(path: Path) -> Ed25519PublicKey:
    """The public key of a file.

    :raises SecurityInvalid: if it cannot be read or is no Ed25519 public key.
    """
    try:
        key = load_pem_public_key(_content(path))
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise SecurityInvalid(f"{path}: not a public key in PEM") from error
    if not isinstance(key, Ed25519PublicKey):
        raise SecurityInvalid(f"{path}: not an Ed25519 public key")
    return key


def public_pem(key: Ed25519PrivateKey) -> str:
    """The public key in PEM."""
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode("ascii")


def require_private(path: Path) -> None:
    """Refuse a secret that others may read.

    :raises SecurityInvalid: if they may.
    """
    found = path.stat()
    # A key that root owns may be lent to the service's group: so secrets are mounted into containers.
    forbidden = stat.S_IRWXO | stat.S_IWGRP | stat.S_IXGRP | (0 if found.st_uid == 0 else stat.S_IRGRP)
    if found.st_mode & forbidden:
        raise SecurityInvalid(
            f"{path}: mode {stat.S_IMODE(found.st_mode):04o} lets others than its owner at it; chmod 600 it (or 640 if "
            "root owns it), and replace the key if somebody may have read it"
        )


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise SecurityInvalid(f"{path}: cannot be read: {error.strerror}") from error
