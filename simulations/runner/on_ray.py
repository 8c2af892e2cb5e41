"""Chunks as tasks on Ray, on this machine or on a cluster.

Only this process stores results, each once, so a worker that is killed leaves neither a hole nor a double
count: its task is run again. A chunk's result does not depend on where it ran.
"""

from __future__ import annotations

import importlib
import json
import os
import secrets
import signal
import socket
import sys
import sysconfig
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from guardrail.errors import MissingExtra
from simulations.runner.device import on_device, prepare_process
from simulations.runner.errors import ChunkFailed, NoDevice, RayUnavailable, SimulationError
from simulations.runner.execute import run_chunk
from simulations.runner.suite import Chunk

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from simulations.runner.suite import Result, Suite, SuiteConfig

LOCAL = "local"
RETRIES = 3
"""How often a chunk is tried again whose worker was lost."""
IN_FLIGHT_PER_WORKER = 2
CONNECT_SECONDS = 5.0


class OnRay:
    """Chunks run as tasks of one CPU each, and one GPU if asked for.

    Enter it before JAX computes anything in this process: starting Ray forks it.

    Args:
        address: of a Ray cluster, or "local" to start one here for as long as this is entered.
        suite_path: where workers find the suite, "module:name".
        device: "cpu" or "gpu".
    """

    def __init__(self, address: str, suite_path: str, device: str) -> None:
        self._address, self._suite_path, self._device = address, suite_path, device
        self._needed = {"CPU": 1, "GPU": 1} if device == "gpu" else {"CPU": 1}

    def __enter__(self) -> Self:
        """Connect to Ray.

        :raises MissingExtra: if Ray is not installed.
        :raises RayUnavailable: if there is none at the address, or it has no CPU.
        :raises NoDevice: if it has no GPU, and one is asked for.
        """
        self._ray = _import_ray(self._address)
        _start(self._ray, self._address)
        try:
            self._workers = _workers(self._ray.cluster_resources(), self._needed, self._address)
        except BaseException:
            self._ray.shutdown()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._ray.shutdown()

    def results(self, suite: Suite[Any], config: SuiteConfig, chunks: Sequence[Chunk]) -> Iterator[tuple[int, Result]]:
        """See `execute.Executor.results`.

        :raises ChunkFailed: if a chunk fails, or its worker is lost again and again.
        """
        task = self._ray.remote(
            num_cpus=1, num_gpus=self._needed.get("GPU", 0), max_retries=RETRIES, retry_exceptions=False
        )(_work)
        waiting = list(enumerate(chunks))[::-1]
        places: dict[Any, int] = {}
        plain = config.model_dump_json()
        while waiting or places:
            while waiting and len(places) < self._workers * IN_FLIGHT_PER_WORKER:
                place, chunk = waiting.pop()
                spec = {"name": chunk.name, "spec": dict(chunk.spec), "work": chunk.work}
                places[task.remote(self._suite_path, plain, json.dumps(spec), self._device)] = place
            (ready,), _ = self._ray.wait(list(places), num_returns=1)
            place = places.pop(ready)
            yield place, _result(self._ray, ready, chunks[place].name)


def _work(suite_path: str, config: str, chunk: str, device: str) -> dict[str, Any]:
    """Run one chunk on a worker; configuration and chunk come as JSON."""
    prepare_process(device)
    module, _, name = suite_path.partition(":")
    suite = getattr(importlib.import_module(module), name)
    with on_device(device):
        return dict(run_chunk(suite, suite.config_type.model_validate_json(config), Chunk(**json.loads(chunk))))


def _result(ray: Any, reference: Any, chunk: str) -> Result:
    try:
        result = ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, SimulationError):
            raise error.cause from error
        raise ChunkFailed(f"chunk {chunk} failed: {_one_line(error.cause)}") from error
    except ray.exceptions.RayError as error:
        raise ChunkFailed(f"chunk {chunk} failed: {_one_line(error)}") from error
    # Arrays from Ray are read-only views of its shared memory, which ends with the session.
    return {name: np.array(array) for name, array in result.items()}


def _workers(resources: Mapping[str, float], needed: Mapping[str, int], address: str) -> int:
    """How many tasks run at once; Ray itself would wait for ever for what no machine has."""
    if resources.get("GPU", 0) < needed.get("GPU", 0):
        raise NoDevice(f"Ray at {address} has no GPU; use --device cpu")
    if resources.get("CPU", 0) < 1:
        raise RayUnavailable(f"Ray at {address} has no CPU to run on")
    return min(int(resources[name]) for name in needed)


def _import_ray(address: str) -> Any:
    # Read once, when Ray is imported: no reports of usage, and what is started here obeys this process only,
    # though it listens on all interfaces.
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    if address == LOCAL:
        os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    try:
        import ray
    except ModuleNotFoundError as error:
        raise MissingExtra("--ray", "sim") from error
    return ray


def _start(ray: Any, address: str) -> None:
    # Workers import this project from where this process does, and XLA takes NPROC for the number of its
    # threads: one for the one CPU of a task.
    environment = {"env_vars": {"PYTHONPATH": os.pathsep.join(_import_path()), "NPROC": "1"}}
    options: dict[str, Any] = {"runtime_env": environment, "log_to_driver": False, "logging_level": "ERROR"}
    if address == LOCAL:
        options["include_dashboard"] = False
    try:
        _check_answers(address)
        terminate = signal.getsignal(signal.SIGTERM)
        ray.init(address=address, **options)
        signal.signal(signal.SIGTERM, terminate)  # Ray puts one in its place that prints a stack.
    except (ConnectionError, RuntimeError, ValueError, OSError, ImportError) as error:
        hint = "" if address == LOCAL else "; a cluster that wants a token needs RAY_AUTH_MODE=token here"
        raise RayUnavailable(f"no Ray at {address}: {_one_line(error)}{hint}") from error


def _check_answers(address: str) -> None:
    """Ray itself waits for minutes for a cluster that is not there.

    :raises OSError: if nothing answers at "host:port" or "ray://host:port".
    """
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if port.isdigit():
        socket.create_connection((host, int(port)), CONNECT_SECONDS).close()


def _import_path() -> list[str]:
    """Where this process imports from, apart from its Python installation, which a worker has of its own."""
    own = tuple(sysconfig.get_paths()[name] for name in ("stdlib", "platstdlib", "purelib", "platlib"))
    folders = [entry or os.getcwd() for entry in sys.path]
    return [folder for folder in folders if os.path.isdir(folder) and not folder.startswith(own)]


def _one_line(error: object) -> str:
    return " ".join(str(error).split())[:500] or type(error).__name__
