"""OpenTelemetry spans of a service: one for each RPC, which goes on with the caller's trace, and its parts.

Spans hold names, ids, decisions and bounds; no context, no action, no world id, no message of an error. Without
tracing each of the functions here takes well under a microsecond.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final

import grpc.aio
import structlog

from guardrail.domain import Verdict
from guardrail.errors import MissingExtra, NotServing
from guardrail.server.contract import SERVICE
from guardrail.spans import failing, verdict_attributes

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SpanExporter
    from opentelemetry.trace import Span, Tracer

_PROTOCOLS: Final = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
_NOTHING: Final = contextlib.nullcontext()

_current: ContextVar[tuple[Tracer, Span] | None] = ContextVar("guardrail_span", default=None)


def make_exporter() -> SpanExporter:
    """What sends spans away: OTLP over gRPC, as the environment's OTEL_EXPORTER_OTLP_* say.

    :raises NotServing: if the environment asks for another protocol, or its settings are wrong.
    """
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter

    for name in _PROTOCOLS:
        if os.environ.get(name, "grpc") != "grpc":
            raise NotServing(f"{name} is {os.environ[name]!r}: traces are sent by grpc only")
    try:
        return OTLPSpanExporter()
    except ValueError as error:
        raise NotServing(f"the environment's OTEL_EXPORTER_OTLP_* are wrong: {error}") from error


def start_tracing() -> TracerProvider:
    """Begin to send spans; `shutdown` of what is returned sends the last ones. Sampling is as OTEL_TRACES_SAMPLER says.

    :raises MissingExtra: if OpenTelemetry is not installed.
    :raises NotServing: as `make_exporter`.
    """
    try:
        from opentelemetry.sdk.resources import SERVICE_NAME, Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        exporter = make_exporter()
    except ImportError as error:
        raise MissingExtra("--traces", "otel") from error
    # The environment's OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES come before the name given here.
    named = Resource({SERVICE_NAME: "guardrail"})
    given = Resource.create()
    name = given.attributes.get(SERVICE_NAME)
    resource = given.merge(named) if str(name).startswith("unknown_service") else given
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(exporter))
    return provider


def rpc(tracer: Tracer | None, method: str, context: grpc.aio.ServicerContext[Any, Any]) -> AbstractContextManager[Any]:
    """A span around an RPC whose caller is known; log lines within carry its trace id."""
    return _NOTHING if tracer is None else _rpc(tracer, method, context)


@contextlib.contextmanager
def _rpc(tracer: Tracer, method: str, context: grpc.aio.ServicerContext[Any, Any]) -> Iterator[None]:
    from opentelemetry.trace import SpanKind, format_trace_id
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    metadata = context.invocation_metadata() or ()
    carrier = {name: value for name, value in metadata if isinstance(value, str)}
    name = f"{SERVICE}/{method}"
    with (
        tracer.start_as_current_span(
            name,
            TraceContextTextMapPropagator().extract(carrier),
            kind=SpanKind.SERVER,
            attributes={"rpc.system.name": "grpc", "rpc.method": name},
            record_exception=False,
            set_status_on_exception=False,
        ) as span,
        failing(span),
    ):
        # Each call runs in a context of its own, so nothing is to be put back; a refusal is logged after the span.
        structlog.contextvars.bind_contextvars(trace_id=format_trace_id(span.get_span_context().trace_id))
        _current.set((tracer, span))
        yield


def part(name: str) -> AbstractContextManager[Any]:
    """A span of a part of the RPC at hand; nothing where none is traced."""
    current = _current.get()
    return _NOTHING if current is None else _part(current[0], name)


@contextlib.contextmanager
def _part(tracer: Tracer, name: str) -> Iterator[None]:
    with (
        tracer.start_as_current_span(name, record_exception=False, set_status_on_exception=False) as span,
        failing(span),
    ):
        yield


def decided(policy: str, verdicts: Sequence[Verdict]) -> None:
    """Note verdicts in the span of the RPC at hand."""
    current = _current.get()
    if current is not None and current[1].is_recording():
        current[1].set_attributes({"guardrail.policy": policy, **verdict_attributes(verdicts)})
