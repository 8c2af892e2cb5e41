"""OpenTelemetry spans of calls, where the program that uses the client has set up tracing.

Nothing is loaded here that the program has not loaded itself. Spans hold names, ids, decisions and bounds, never
what was asked about: no context, no action, no world id, no message of an error.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from guardrail.client.results import CheckedActions
from guardrail.domain import Verdict
from guardrail.spans import failing, verdict_attributes

if TYPE_CHECKING:
    from opentelemetry.trace import Span, Tracer

    from guardrail.client._call import Call

T = TypeVar("T")


def tracer() -> Tracer | None:
    """What makes spans; None if the program traces nothing. Takes less than a microsecond then."""
    api = sys.modules.get("opentelemetry.trace")  # whoever set up tracing has loaded it
    if api is None:
        return None
    provider = api.get_tracer_provider()
    if isinstance(provider, (api.ProxyTracerProvider, api.NoOpTracerProvider)):
        return None
    made: Tracer = provider.get_tracer("guardrail.client")
    return made


@dataclass(frozen=True, slots=True)
class Traced:
    """A call within its span.

    Attributes:
        headers: what tells the service of the span.
    """

    span: Span
    headers: tuple[tuple[str, str], ...]

    def tell(self, answer: T) -> T:
        """Note an answer in the span, and hand it on."""
        if self.span.is_recording():
            if isinstance(answer, Verdict):
                self.span.set_attributes(verdict_attributes([answer]))
            elif isinstance(answer, CheckedActions):
                self.span.set_attributes(verdict_attributes(answer.verdicts))
        return answer


@contextlib.contextmanager
def traced(by: Tracer, call: Call[Any]) -> Iterator[Traced]:
    """A span around a call; an error ends it with the error's reason, not its message."""
    from opentelemetry.trace import SpanKind
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    name = call.path.removeprefix("/")
    attributes = {"rpc.system.name": "grpc", "rpc.method": name}
    policy = getattr(call.request, "policy", "")
    if policy:
        attributes["guardrail.policy"] = policy
    with (
        by.start_as_current_span(
            name, kind=SpanKind.CLIENT, attributes=attributes, record_exception=False, set_status_on_exception=False
        ) as span,
        failing(span),
    ):
        carrier: dict[str, str] = {}
        TraceContextTextMapPropagator().inject(carrier)
        yield Traced(span, tuple(carrier.items()))
