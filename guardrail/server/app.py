"""Wiring and shutdown of one server process."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import structlog
from grpc_health.v1 import health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from guardrail.errors import GuardrailError, NotServing
from guardrail.server import contract, transport
from guardrail.server.admission import Door
from guardrail.server.awaiting import Awaiting
from guardrail.server.exposition import Exposition
from guardrail.server.following import Following
from guardrail.server.gauges import read_gauges
from guardrail.server.health import Health, HealthServicer, States
from guardrail.server.kernel import KernelThread
from guardrail.server.looking import Looking
from guardrail.server.metrics import Metrics
from guardrail.server.registry import Registry
from guardrail.server.security.gate import Gate
from guardrail.server.security.start import secure
from guardrail.server.service import Service
from guardrail.server.servicer import Servicer, UnknownMethods, generic_handler
from guardrail.server.settings import ServerSettings
from guardrail.server.tracing import start_tracing
from guardrail.server.unanswered import Unanswered
from guardrail.server.watchers import Watchers
from guardrail.server.web_console import WebConsole
from guardrail.server.writer import Writer
from guardrail.store import open_store

log = structlog.get_logger()

_HEALTH = "grpc.health.v1.Health"


def configure_jax(folder: Path) -> None:
    """Keep compiled kernels in a folder between starts, and run kernels on the thread that calls them.

    Only a server process may call this: both settings are process-wide.
    """
    import jax

    # The kernel thread waits for its result anyway; a hand-over to another thread would only add latency.
    jax.config.update("jax_cpu_enable_async_dispatch", False)  # type: ignore[no-untyped-call]
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    jax.config.update("jax_compilation_cache_dir", str(folder))  # type: ignore[no-untyped-call]
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.05)  # type: ignore[no-untyped-call]


@contextlib.asynccontextmanager
async def running(settings: ServerSettings) -> AsyncIterator[int]:
    """Run the service; yields its port once it answers, and drains it on exit.

    Health answers NOT_SERVING from the first moment until policies are compiled and worlds restored.

    :raises SecurityInvalid: if the security settings are partial, or a file that they name is wrong.
    :raises PolicyError: if a policy is wrong.
    :raises StoreError: if the store cannot be opened.
    :raises MissingExtra: if traces are to be sent and OpenTelemetry is not installed, or a console is to be served
        and NiceGUI is not.
    :raises NotServing: if the address cannot be bound, or the settings of traces are wrong.
    """
    security = await asyncio.to_thread(secure, settings)
    configure_jax(settings.kernel_folder)
    async with contextlib.AsyncExitStack() as stack:
        tracer = None
        if settings.traces:
            provider = start_tracing()
            stack.push_async_callback(asyncio.to_thread, provider.shutdown)
            tracer = provider.get_tracer("guardrail.server")
        metrics = Metrics()
        exposition = None
        if settings.metrics_listen is not None:
            exposition = Exposition(settings.metrics_listen, metrics.registry)
            stack.push_async_callback(asyncio.to_thread, exposition.close)
            log.info("metrics", port=exposition.port)
        console = None
        if settings.console_listen is not None:
            console = await asyncio.to_thread(WebConsole, settings, sign_in=not security.gate.open)
            stack.push_async_callback(asyncio.to_thread, console.close)
        if settings.store_folder is not None:
            settings.store_folder.mkdir(parents=True, exist_ok=True)
        store = await asyncio.to_thread(open_store, settings.store, signing_key=security.signing_key)
        stack.callback(store.close)
        writer = Writer(
            store,
            metrics,
            max_waiting_reports=settings.max_waiting_reports,
            max_unwritten_decisions=settings.max_unwritten_decisions,
            max_unwritten_bytes=settings.max_unwritten_bytes,
            log_decisions=settings.log_decisions,
        )
        stack.push_async_callback(asyncio.to_thread, writer.close)
        kernel = KernelThread(settings.max_check_wait_seconds)
        stack.push_async_callback(asyncio.to_thread, kernel.close)
        registry = Registry(settings, store, writer, kernel, metrics)
        stack.push_async_callback(registry.close)
        watchers = Watchers(settings.max_watchers)
        following = Following(registry, await asyncio.to_thread(store.follow))
        stack.push_async_callback(following.close)
        door = Door(settings.max_checks_in_flight)
        awaiting = Awaiting(registry, writer, store, metrics)
        stack.push_async_callback(awaiting.close)
        service = Service(registry, writer, store, watchers, following, metrics, awaiting)
        background = (service.calibrating, Looking(registry, metrics), Unanswered(store, metrics))
        for one in background:
            stack.push_async_callback(one.close)
        servicer = Servicer(service, security.gate, metrics, door, tracer)
        read_gauges(metrics, door, registry, writer, watchers, following)

        def look() -> States:
            return States(
                phase="serving" if registry.loaded else "starting",
                decision_log=writer.log_failure,
                store=writer.store_trouble(settings.stall_seconds),
                kernel=kernel.trouble(settings.stall_seconds),
                policies_stale=registry.notices.stale_since is not None,
                behind=following.behind_since is not None,
                console=None if console is None else console.trouble() or "serving",
                owing=awaiting.owing,
            )

        checks = HealthServicer()
        health = Health(checks, metrics, look)
        health.review()
        if exposition is not None:
            exposition.serving = health.serving
        server, port = await _listen(settings, servicer, checks, security.credentials, console)
        reviews = asyncio.create_task(health.keep_reviewing())
        stack.callback(reviews.cancel)
        stack.push_async_callback(_drain, server, health, watchers, settings.drain_seconds)
        if console is not None:
            console.start()
            stack.push_async_callback(asyncio.to_thread, console.close)
        await registry.load()
        await following.start()
        await awaiting.start()
        for one in background:
            one.start()
        stack.enter_context(_reload_on_hangup(registry, security.gate))
        health.review()
        log.info("serving", port=port, policies=[p.name for p in registry.policies()])
        yield port


async def serve(settings: ServerSettings, *, started: Any = None) -> None:
    """Run until SIGTERM or SIGINT.

    Args:
        settings: what the operator set.
        started: called with the port once the service answers.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for name in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(name, stop.set)
    async with running(settings) as port:
        if started is not None:
            started(port)
        await stop.wait()
        log.info("draining")


async def _listen(
    settings: ServerSettings,
    servicer: Servicer,
    checks: HealthServicer,
    credentials: grpc.ServerCredentials | None,
    console: WebConsole | None,
) -> tuple[grpc.aio.Server, int]:
    server = grpc.aio.server(options=transport.options(settings))
    server.add_generic_rpc_handlers((generic_handler(servicer),))
    health_pb2_grpc.add_HealthServicer_to_server(checks, server)
    if settings.reflection:
        names = (contract.SERVICE, _HEALTH, reflection.SERVICE_NAME)
        reflection.enable_server_reflection(names, server, pool=contract.POOL)
    server.add_generic_rpc_handlers((UnknownMethods(servicer.metrics),))  # the last one is asked last
    try:
        if credentials is None:
            port = server.add_insecure_port(settings.listen)
        else:
            port = server.add_secure_port(settings.listen, credentials)
        if console is not None:
            server.add_insecure_port(console.address)  # through the same gate; the folder is this user's only
    except RuntimeError as error:
        raise NotServing(f"cannot listen on {settings.listen}: {error}") from error
    await server.start()
    return server, port


@contextlib.contextmanager
def _reload_on_hangup(registry: Registry, gate: Gate) -> Iterator[None]:
    """Read the callers and the policy files again on SIGHUP, where this process's signals are its own to handle."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    loop, reloads = asyncio.get_running_loop(), set[asyncio.Task[None]]()

    async def reload() -> None:
        try:
            log.info("policies_reloaded", changed=await gate.reload_with(registry.load))
        except Exception as error:
            log.error("policies_not_reloaded", why=str(error), exc_info=not isinstance(error, GuardrailError))

    def hang_up() -> None:
        task = loop.create_task(reload())
        reloads.add(task)
        task.add_done_callback(reloads.discard)

    loop.add_signal_handler(signal.SIGHUP, hang_up)
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGHUP)


async def _drain(server: grpc.aio.Server, health: Health, watchers: Watchers, seconds: float) -> None:
    health.stop()
    watchers.close()
    await server.stop(seconds)
