"""Which devices an oracle computes on."""

from __future__ import annotations

from typing import Literal, TypeAlias

import jax

from guardrail.errors import DeviceUnavailable

DeviceKind: TypeAlias = Literal["cpu", "gpu"]


def cpu() -> tuple[jax.Device, ...]:
    """This process's CPU devices: one, unless XLA is told to make several of its cores
    (`XLA_FLAGS=--xla_force_host_platform_device_count=N`)."""
    return tuple(jax.local_devices(backend="cpu"))


def devices(kind: DeviceKind) -> tuple[jax.Device, ...]:
    """All devices of a kind on this machine.

    :raises DeviceUnavailable: if there is none.
    """
    try:
        return tuple(jax.local_devices(backend=kind))
    except RuntimeError as error:
        raise DeviceUnavailable(f"JAX finds no {kind} on this machine; install the 'gpu' extra, or use cpu") from error
