"""Programs that tests need, from Debian's packages where they are missing."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import tempfile
from pathlib import Path


class PackageMissing(Exception):
    """A program is not there and cannot be installed; says why."""


def need(package, find, missing):
    """What `find` finds; the package is installed if it finds nothing and we are root.

    Args:
        package: the Debian package.
        find: gives what is needed, or None.
        missing: what to say to somebody who must install it.

    :raises PackageMissing: if it is not there and cannot be installed.
    """
    found = find()
    if found is not None:
        return found
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise PackageMissing(missing)
    with (Path(tempfile.gettempdir()) / "guardrail-tests-install.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # several test processes come here at once
        if find() is None:
            for arguments in (["update"], ["install", "--yes", "--no-install-recommends", package]):
                result = subprocess.run(
                    ["apt-get", "--quiet", *arguments],
                    env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
                    stdin=subprocess.DEVNULL,
                    capture_output=True,
                    text=True,
                )
                if result.returncode != 0:
                    raise PackageMissing(f"apt-get {' '.join(arguments)} failed: {result.stderr[-500:]}")
    found = find()
    if found is None:
        raise PackageMissing(f"the package {package} did not bring it: {missing}")
    return found
