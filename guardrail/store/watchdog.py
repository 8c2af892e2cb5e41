"""A limit on how long a server may leave a connection without an answer.

The server's own timeouts do not help against a server that hangs, and TCP's do not notice one whose
machine still answers.
"""

from __future__ import annotations

import os
import socket
import threading
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def cut_after(seconds: float, descriptor: int) -> Iterator[None]:
    """Shut a socket down if the block takes longer, so that whoever reads from it gets an error.

    Args:
        seconds: how long the block may take.
        descriptor: the socket's. It may be closed within the block: a copy of it is watched, so that a number
            that was given to another file meanwhile is left alone.
    """
    with socket.socket(fileno=os.dup(descriptor)) as watched:
        timer = threading.Timer(seconds, _shut_down, [watched])
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()
            timer.join()


def _shut_down(watched: socket.socket) -> None:
    with suppress(OSError):  # the other side was faster
        watched.shutdown(socket.SHUT_RDWR)
