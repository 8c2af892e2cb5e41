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


@contextlib.contextmanager
def on_device(name: str) -> Iterator[None]:
    """Compute on the first device of this kind.

    :raises NoDevice: if there is none.
    """
    import jax

    try:
        device = jax.devices(name)[0]
    except RuntimeError as error:
        raise NoDevice(f"JAX finds no {name} on this machine; install the 'gpu' extra or use --device cpu") from error
    with jax.default_device(device):
        yield


def keep_programs() -> None:
    """Keep compiled programs in the user's cache folder, so that the next run does not compile them again."""
    import jax

    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    jax.config.update("jax_compilation_cache_dir", str(Path(home) / "guardrail" / "simulations"))  # type: ignore[no-untyped-call]
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)  # type: ignore[no-untyped-call]
