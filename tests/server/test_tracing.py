"""Spans of clients and services: one trace across both, nothing of what was asked about, and no cost when off."""

import asyncio
import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import grpc
import pytest
import structlog
from opentelemetry import trace
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import NoOpTracerProvider, SpanKind, StatusCode

import guardrail
from guardrail.client import _tracing
from guardrail.errors import InvalidInput, NotServing, NoVerdict
from guardrail.server import servicer, tracing
from guardrail.server.watchers import Watchers

SECRET = "no-span-may-hold-this"


@pytest.fixture
def client_spans(monkeypatch):
    """A program that traces, for the length of a test."""
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", provider)
    yield exporter
    provider.shutdown()


@pytest.fixture
def traced_service(start_service, monkeypatch):
    """A service that traces; its spans are there once it has stopped."""
    exporter = InMemorySpanExporter()
    monkeypatch.setattr(exporter, "shutdown", lambda: None)  # what it holds stays readable
    monkeypatch.setattr(tracing, "make_exporter", lambda: exporter)
    service = start_service(traces=True)
    return SimpleNamespace(service=service, spans=exporter)


def ended(traced):
    traced.service.stop()
    return {span.name: span for span in traced.spans.get_finished_spans()}


def text(spans):
    return "\n".join(span.to_json() for span in spans)


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_a_check_and_its_report_are_traces_across_client_and_server(client_spans, traced_service, kind):
    asked = {"policy": "coin", "world": SECRET, "context": {}, "action": {"kind": "low", "size": 1.2345678}}
    target = f"127.0.0.1:{traced_service.service.port}"

    async def ask():
        async with guardrail.AsyncClient(target, timeout=20) as client:
            return await client.check(**asked), await client.report(**asked, outcome=False)

    if kind == "async":
        verdict, _ = asyncio.run(ask())
    else:
        with traced_service.service.client() as client:
            verdict, _ = client.check(**asked), client.report(**asked, outcome=False)
    check, report = client_spans.get_finished_spans()
    server = ended(traced_service)
    assert check.name == "guardrail.v1.GuardrailService/CheckAction"
    assert (check.kind, check.parent) == (SpanKind.CLIENT, None)
    served = server[check.name]
    assert served.kind is SpanKind.SERVER
    assert served.parent.span_id == check.context.span_id
    kernel, append = server["guardrail.kernel"], server["guardrail.store.append"]
    assert kernel.parent.span_id == served.context.span_id
    assert append.parent.span_id == server[report.name].context.span_id
    assert {s.context.trace_id for s in (check, served, kernel)} == {check.context.trace_id}
    assert {s.context.trace_id for s in (report, server[report.name], append)} == {report.context.trace_id}
    for span in (check, served):
        attributes = span.attributes
        assert attributes["guardrail.policy"] == "coin"
        assert attributes["guardrail.decision_id"] == verdict.decision_id
        assert attributes["guardrail.decision"] == verdict.decision
        assert attributes["guardrail.harm_bound"] == verdict.harm_bound
        assert attributes["guardrail.reason"] == verdict.reasons[0].code
    everything = text([check, report, *server.values()])
    assert SECRET not in everything
    assert "1.2345678" not in everything


def test_several_verdicts_are_told_by_number(client_spans, traced_service):
    with traced_service.service.client() as client:
        actions = [{"kind": "low", "size": 20.0}, {"kind": "low"}, {"kind": "low", "size": 30.0}]
        checked = client.check_many(policy="coin", world="w", context={}, actions=actions)
    (span,) = client_spans.get_finished_spans()
    assert list(span.attributes["guardrail.decision_ids"]) == [v.decision_id for v in checked.verdicts]
    assert span.attributes["guardrail.decisions.reject"] >= 2
    assert dict(ended(traced_service)[span.name].attributes).items() >= dict(span.attributes).items()


def test_a_refusal_ends_both_spans_with_its_reason_and_without_its_message(client_spans, traced_service):
    with traced_service.service.client() as client:
        with pytest.raises(NoVerdict):
            client.check(policy="absent", world="w", context={}, action={})
        with pytest.raises(InvalidInput):
            client.report(policy="coin", world="w", context={}, action={SECRET: 1}, outcome=False)
    check, report = client_spans.get_finished_spans()
    server = ended(traced_service)
    for span in (check, server[check.name]):
        assert (span.status.status_code, span.attributes["error.type"]) == (StatusCode.ERROR, "POLICY_NOT_FOUND")
    assert report.status.status_code is StatusCode.ERROR
    assert SECRET not in text([check, report, *server.values()])


def test_a_service_begins_traces_of_its_own_for_callers_without_one(traced_service):
    with traced_service.service.client() as client:
        client.policies()
    assert ended(traced_service)["guardrail.v1.GuardrailService/ListPolicies"].parent is None


def test_a_traceparent_that_is_none_harms_nothing(traced_service):
    with traced_service.service.client(metadata=(("traceparent", "00-" + "z" * 200),)) as client:
        client.policies()
    assert ended(traced_service)["guardrail.v1.GuardrailService/ListPolicies"].parent is None


@pytest.mark.parametrize("provider", [None, NoOpTracerProvider()])
def test_a_program_that_traces_nothing_sends_no_header(monkeypatch, provider):
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", provider)
    assert _tracing.tracer() is None


def test_off_it_costs_less_than_a_microsecond(monkeypatch):
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", None)

    def once():
        _tracing.tracer()
        with tracing.rpc(None, "CheckAction", None), tracing.part("guardrail.kernel"):
            tracing.decided("coin", ())

    def seconds():
        started = time.perf_counter()
        for _ in range(1000):
            once()
        return (time.perf_counter() - started) / 1000

    # The least of many: the machine may be busy. A span would take tens of microseconds.
    assert min(seconds() for _ in range(50)) < 4e-6


@pytest.mark.parametrize("name", ["OTEL_EXPORTER_OTLP_PROTOCOL", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL"])
def test_another_protocol_is_refused(monkeypatch, name):
    monkeypatch.setenv(name, "http/protobuf")
    with pytest.raises(NotServing, match=name):
        tracing.start_tracing()


def test_without_the_extra_it_says_how_to_get_it(start_service, monkeypatch):
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    with pytest.raises(guardrail.errors.MissingExtra, match=r"guardrail\[otel\]"):
        start_service(traces=True)


def test_log_lines_of_a_request_name_its_policy_caller_decision_and_trace(traced_service, monkeypatch):
    capture = structlog.testing.LogCapture()
    processors = [structlog.contextvars.merge_contextvars, capture]
    monkeypatch.setattr(servicer, "log", structlog.wrap_logger(None, processors=processors))

    def fail(*arguments):
        raise RuntimeError("broken")

    monkeypatch.setattr(Watchers, "publish", fail)  # called once the decision is made
    with traced_service.service.client() as client, pytest.raises(NoVerdict, match="INTERNAL"):
        client.check(policy="coin", world="w", context={}, action={"kind": SECRET})
    (line,) = capture.entries
    span = ended(traced_service)["guardrail.v1.GuardrailService/CheckAction"]
    assert (line["event"], line["policy"]) == ("request_failed", "coin")
    assert line["trace_id"] == format(span.context.trace_id, "032x")
    assert len(line["decision_id"]) > 10
    assert SECRET not in str(line)


class Collector(trace_service_pb2_grpc.TraceServiceServicer):
    """Takes what an OTLP exporter sends."""

    def __init__(self):
        self.resources = []

    def Export(self, request, context):
        self.resources += request.resource_spans
        return trace_service_pb2.ExportTraceServiceResponse()


def test_serve_sends_its_spans_by_otlp_and_its_log_lines_name_them(policy_folder, tmp_path, client_spans):
    collector, server = Collector(), grpc.server(ThreadPoolExecutor(2))
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(collector, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    command = [sys.executable, "-m", "guardrail.cli.main", "serve", "--json", "--listen", "127.0.0.1:0"]
    command += ["--policies", str(policy_folder), "--store", str(tmp_path / "a.db"), "--traces", "--log-decisions"]
    environment = {**os.environ, "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{port}"}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    try:
        target = json.loads(process.stdout.readline())["listen"]
        with guardrail.Client(target, timeout=20) as client:
            action = {"kind": "low", "size": 20.0}
            verdict = client.check(policy="coin", world="w", context={}, action=action)
    finally:
        process.terminate()
        _, err = process.communicate(timeout=60)
        server.stop(None).wait()
    assert process.returncode == 0, err
    (check,) = client_spans.get_finished_spans()
    spans = [span for resource in collector.resources for scope in resource.scope_spans for span in scope.spans]
    (served,) = (span for span in spans if span.name == check.name)
    assert int.from_bytes(served.trace_id) == check.context.trace_id
    assert int.from_bytes(served.parent_span_id) == check.context.span_id
    names = {a.key: a.value.string_value for a in collector.resources[0].resource.attributes}
    assert names["service.name"] == "guardrail"
    (line,) = (line for line in map(json.loads, err.splitlines()) if line["event"] == "decision")
    told = {"decision_id": verdict.decision_id, "policy": "coin", "world": "w", "decision": "reject", "caller": ""}
    assert line.items() >= told.items()
    assert line["reasons"] == ["RULE_MATCHED"]
    assert not {"action", "context"} & line.keys()
