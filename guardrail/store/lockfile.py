"""An advisory lock on a file beside the database, held by the one store that may write.

The file also says how many observations were acknowledged. It is written after each commit and never synced, so it
says at most what the database must hold, and a database that holds less has lost its end.
"""

from __future__ import annotations

import fcntl
import os
import re
from typing import TYPE_CHECKING

from guardrail.errors import StoreError

_ACKNOWLEDGED = re.compile(r"^acknowledged ([0-9]{1,18})$", re.MULTILINE)

if TYPE_CHECKING:
    from pathlib import Path


class LockFile:
    """An exclusive `flock`, which the operating system releases when the process dies.

    The file stays when the lock is released: were it removed, a third store could lock a new
    file of that name while a second waits with the old one open.

    :raises StoreError: if another store holds the lock.
    :raises OSError: if the file cannot be opened.
    """

    def __init__(self, path: Path, database: str) -> None:
        self.path = path
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = self._holder() or "another store"
            self.release()
            raise StoreError(
                f"{database} is already open for writing by {holder}: stop that one, or open it read-only"
            ) from error
        except BaseException:
            self.release()
            raise
        self.database_existed = bool(self._holder())
        """Whether `record_holder` was ever called: the database was complete once."""
        found = _ACKNOWLEDGED.search(self._text())
        self.acknowledged = int(found[1]) if found else 0
        """Number of observations that the database must hold; 0 if nothing is known."""

    def _text(self) -> str:
        return os.pread(self._descriptor, 200, 0).decode("ascii", "replace")

    def _holder(self) -> str:
        return self._text().partition("\n")[0].strip()

    def record_holder(self, observations: int) -> None:
        """Write this process's id for the message to others. To be called when the database is complete.

        Args:
            observations: number of observations that it holds.
        """
        self._head = f"process {os.getpid()}\n"
        self._write(observations)

    def acknowledge(self, observations: int) -> None:
        """Take note that so many more observations are committed."""
        self._write(self.acknowledged + observations)

    def _write(self, acknowledged: int) -> None:
        self.acknowledged = acknowledged
        text = f"{self._head}acknowledged {acknowledged}\n".encode("ascii")
        os.pwrite(self._descriptor, text, 0)
        os.ftruncate(self._descriptor, len(text))

    def release(self) -> None:
        """Let another store write. Calling it again does nothing."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
