"""Chunks as tasks on Ray, on this machine or on a cluster.

Only the driver stores results, each once, so a worker that is killed leaves neither a hole nor a double
count: its task is run again. A chunk's result does not depend on where it ran.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import socket
import sys
from typing import TYPE_CHECKING, Any

import numpy as np

from simulations.runner.errors import ChunkFailed, RayUnavailable
from simulations.runner.suite import Chunk

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from simulations.runner.suite import Result, Suite, SuiteConfig

LOCAL = "local"
RETRIES = 3
"""How often a chunk is tried again whose worker was lost."""
IN_FLIGHT_PER_CPU = 2
CONNECT_SECONDS = 5.0


class OnRay:
    """Chunks run as tasks of one CPU each.

    Args:
        address: of a Ray cluster, or "local" to start one here for as long as this run lasts.
        suite_path: where workers find the suite, "module:name".
        device: "cpu" or "gpu".
    """

    def __init__(self, address: str, suite_path: str, device: str) -> None:
        self._address, self._suite_path, self._device = address, suite_path, device

    def results(self, suite: Suite[Any], config: SuiteConfig, chunks: Sequence[Chunk]) -> Iterator[tuple[int, Result]]:
        """See `execute.Executor.results`.

        :raises RayUnavailable: if Ray is not installed or there is none at the address.
        :raises ChunkFailed: if a chunk fails, or its worker is lost again and again.
        """
        ray = _import_ray()
        # Ray prints notices of lost workers to standard output, which belongs to the table.
        with contextlib.redirect_stdout(sys.stderr), _session(ray, self._address):
            gpus = 1 if self._device == "gpu" else 0
            task = ray.remote(num_cpus=1, num_gpus=gpus, max_retries=RETRIES, retry_exceptions=False)(run_chunk)
            waiting = list(enumerate(chunks))[::-1]
            places: dict[Any, int] = {}
            limit = max(1, int(ray.cluster_resources().get("CPU", 1)) * IN_FLIGHT_PER_CPU)
            while waiting or places:
                while waiting and len(places) < limit:
                    place, chunk = waiting.pop()
                    spec = {"name": chunk.name, "spec": dict(chunk.spec), "work": chunk.work}
                    reference = task.remote(self._suite_path, config.model_dump(mode="json"), spec, self._device)
                    places[reference] = place
                (ready,), _ = ray.wait(list(places), num_returns=1)
                place = places.pop(ready)
                try:
                    result = ray.get(ready)
                except ray.exceptions.RayError as error:
                    cause = getattr(error, "cause", None) or error
                    raise ChunkFailed(f"chunk {chunks[place].name} failed: {_one_line(cause)}") from error
                # Arrays from Ray are read-only views of its shared memory, which ends with the session.
                yield place, {name: np.array(array) for name, array in result.items()}


def run_chunk(suite_path: str, config: dict[str, Any], chunk: dict[str, Any], device: str) -> dict[str, Any]:
    """Run one chunk on a worker; everything comes as plain data."""
    from simulations.runner.device import on_device

    module, _, name = suite_path.partition(":")
    suite = getattr(importlib.import_module(module), name)
    with on_device(device):
        return dict(suite.run(suite.config_type.model_validate_json(json.dumps(config)), Chunk(**chunk)))


def _import_ray() -> Any:
    # Neither reports of usage nor settings of accelerators that nobody asked for.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        import ray
    except ImportError as error:
        raise RayUnavailable("--ray needs the 'sim' extra: pip install 'guardrail[sim]'") from error
    return ray


@contextlib.contextmanager
def _session(ray: Any, address: str) -> Iterator[None]:
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR", "configure_logging": True}
    # Workers import this project from where the driver does.
    environment = {"env_vars": {"PYTHONPATH": os.pathsep.join(_import_path())}}
    try:
        _check_answers(address)
        if address == LOCAL:
            ray.init(address="local", include_dashboard=False, runtime_env=environment, **options)
        else:
            ray.init(address=address, runtime_env=environment, **options)
    except (ConnectionError, RuntimeError, ValueError, OSError) as error:
        raise RayUnavailable(f"no Ray at {address}: {_one_line(error)}") from error
    try:
        yield
    finally:
        ray.shutdown()


def _check_answers(address: str) -> None:
    """Ray itself waits for minutes for a cluster that is not there.

    :raises OSError: if nothing answers at "host:port" or "ray://host:port".
    """
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if port.isdigit():
        socket.create_connection((host, int(port)), CONNECT_SECONDS).close()


def _import_path() -> list[str]:
    return [entry or os.getcwd() for entry in sys.path if entry == "" or os.path.isdir(entry)]


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:500] or type(error).__name__
