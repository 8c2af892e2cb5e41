"""What two processes say to each other: frames of one JSON header and named arrays. Nothing is ever pickled.

A frame is 4 bytes of magic, the lengths of header and body (unsigned, big endian, 4 and 8 bytes), the header as
UTF-8 JSON, and the body, which is an npz archive or empty.
"""

from __future__ import annotations

import io
import json
import struct
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_MAGIC = b"GRP1"
_LENGTHS = struct.Struct(">4sIQ")
PREFIX_BYTES = _LENGTHS.size
_MAX_HEADER = 64 * 2**20
_MAX_BODY = 2**36

Arrays = dict[str, npt.NDArray[Any]]


class BrokenFrame(Exception):
    """The bytes are no frame."""


def encode(header: Mapping[str, Any], arrays: Mapping[str, npt.NDArray[Any]]) -> bytes:
    """One frame."""
    text = json.dumps(header).encode()
    body = io.BytesIO()
    if arrays:
        np.savez(body, allow_pickle=False, **arrays)
    content = body.getvalue()
    return _LENGTHS.pack(_MAGIC, len(text), len(content)) + text + content


def lengths(prefix: bytes) -> tuple[int, int]:
    """Lengths of header and body from a frame's first PREFIX_BYTES bytes.

    :raises BrokenFrame: if they are no prefix, or promise too much.
    """
    magic, header, body = _LENGTHS.unpack(prefix)
    if magic != _MAGIC or header > _MAX_HEADER or body > _MAX_BODY:
        raise BrokenFrame("the bytes are no message")
    return header, body


def decode(header: bytes, body: bytes) -> tuple[dict[str, Any], Arrays]:
    """Header and arrays of a frame.

    :raises BrokenFrame: if the bytes are damaged.
    """
    try:
        fields = json.loads(header)
        arrays: Arrays = {}
        if body:
            with np.load(io.BytesIO(body), allow_pickle=False) as archive:
                arrays = {name: archive[name] for name in archive.files}
    except Exception as error:
        raise BrokenFrame("the message is damaged") from error
    if not isinstance(fields, dict):
        raise BrokenFrame("the message has no fields")
    return fields, arrays


def read(take: Callable[[int], bytes]) -> tuple[dict[str, Any], Arrays]:
    """Read one frame.

    Args:
        take: returns exactly as many bytes as asked for.

    :raises BrokenFrame: if the bytes are no frame.
    """
    header, body = lengths(take(PREFIX_BYTES))
    return decode(take(header), take(body) if body else b"")
