"""The device that simulations compute on, and where their compiled programs are kept."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

from simulations.runner.errors import NoDevice

if TYPE_CHECKING:
    from collections.abc import Iterator

DEVICES = ("cpu", "gpu")


def prepare_process(device: str) -> None:
    """Keep compiled programs in the user's cache folder between runs; leave a GPU alone that is not asked for.

    Only a process of the command line and its workers may call this, before JAX computes: both
    settings are process-wide.
    """
    import jax

    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    jax.config.update("jax_compilation_cache_dir", str(Path(home) / "guardrail" / "simulations"))  # type: ignore[no-untyped-call]
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)  # type: ignore[no-untyped-call]
    if device == "cpu":
        jax.config.update("jax_platforms", "cpu")  # type: ignore[no-untyped-call]


@contextlib.contextmanager
def on_device(device: str) -> Iterator[None]:
    """Compute on the first device of this kind.

    :raises NoDevice: if there is none.
    """
    import jax

    try:
        first = jax.devices(device)[0]
    except RuntimeError as error:
        raise NoDevice(f"JAX finds no {device} on this machine; install the 'gpu' extra or use --device cpu") from error
    with jax.default_device(first):
        yield
