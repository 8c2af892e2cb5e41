"""Fuzz targets: functions of bytes that raise only if something that must hold does not.

`tools/fuzz.py` runs them guided by coverage, `tests/fuzz/test_corpus.py` on the inputs that are kept.
"""

from __future__ import annotations

import asyncio
import functools
import math
import re
import tempfile
import time
import warnings
from contextlib import AsyncExitStack, suppress
from pathlib import Path

import grpc.aio
import numpy as np
from service_model import Model, parses

from guardrail.client import _reads, _shared
from guardrail.errors import GuardrailError, NoVerdict, PolicyError, SnapshotInvalid
from guardrail.guard import Judge
from guardrail.policy import load_policy, parse_policy
from guardrail.policy.expressions import CheckedExpression, Environment, EvaluationError
from guardrail.policy.lint import lint
from guardrail.policy.schema import FieldSpec
from guardrail.rebuild import decode_snapshot, encode_snapshot
from guardrail.v1 import guardrail_pb2 as pb
from guardrail.wire import verdict_from_proto

ROOT = Path(__file__).resolve().parents[2]
SECONDS_FOR_A_DOCUMENT = 5.0
"""Longest time that a document of fuzzing's size (64 KiB) may take."""

COIN = """
schema: guardrail/v1
name: coin
description: Two coins, thrown in two ways.
action: {kind: string, size: {type: number, optional: true}}
hypotheses:
  family: finite-table
  category: action.kind
  table:
    - {name: fair, prior: 0.7, rates: {low: 0.05, high: 0.5}}
    - {name: wild, prior: 0.3, rates: {low: 0.3, high: 0.9}}
outcome: {name: hurt, type: bool}
harm: outcome.hurt
bound: {kind: ratio, delta: 0.05, running: true}
decision: {reject_above: 0.2, escalate_above: 0.1}
rules: [{when: has(action.size) && action.size > 10.0, decide: reject, reason: too large}]
"""


# ---------------------------------------------------------------- replies, as the client reads them


def is_plain_accept(message):
    """True if a verdict's own fields carry its accept. Written from the contract's text, apart from the code."""
    limits = [message.threshold] + ([message.escalate_above] if message.HasField("escalate_above") else [])
    return (
        message.decision == 1
        and all(message.HasField(name) for name in ("harm_bound", "threshold", "guarantee"))
        and message.decision_id != ""
        and message.policy_revision != ""
        and all(0.0 <= limit <= 1.0 for limit in limits)
        and 0.0 <= message.harm_bound <= min(limits)
    )


def check_reply(data):
    """Whatever bytes answer a check: no verdict, or one that accepts only if the bytes plainly do."""
    asked = _shared.question({}, {"kind": "low"})
    for revision, least in ((None, None), ("r", 3)):
        try:
            verdict = _shared.check("coin", "w", asked, revision, least).finish(data)
        except NoVerdict:
            continue
        message = pb.CheckActionResponse.FromString(data).verdict
        assert (verdict.policy, verdict.world) == ("coin", "w")
        assert revision is None or verdict.policy_revision == revision
        assert verdict.posterior_revision >= (least or 0)
        assert verdict.accepted is is_plain_accept(message)
        assert 0.0 <= verdict.harm_bound <= 1.0
        assert 0.0 <= verdict.threshold <= 1.0
    try:
        several = _shared.check_many("coin", "w", {}, [{}, {}], None, None).finish(data)
    except NoVerdict:
        return
    messages = pb.CheckActionsResponse.FromString(data).verdicts
    assert all(is_plain_accept(messages[index]) for index in several.allowed)
    assert [v.accepted for v in several.verdicts] == list(map(is_plain_accept, messages))


def other_replies(data):
    """Whatever bytes answer a report or a read: an error of the project's, or a value."""
    report = _shared.Report({}, {}, True, "a")
    calls = [
        _shared.report("coin", "w", report),
        _shared.report_many("coin", "w", [report]),
        _reads.world("coin", "w"),
        _reads.worlds(None, ""),
        _reads.decision("d"),
        _reads.watch(None, None),
        _reads.policies(),
        _reads.policy("coin"),
        _reads.validate_policy("x", "p"),
        _reads.reload_policies(),
    ]
    for call in calls:
        try:
            call.finish(data)
        except GuardrailError:
            continue


def fuzz_reply(data: bytes) -> None:
    """A reply's bytes, and bare verdicts."""
    check_reply(data)
    other_replies(data)
    message = parses(pb.Verdict, data)
    if message is not None:
        assert verdict_from_proto(message).accepted is is_plain_accept(message)


# ---------------------------------------------------------------- requests, as the service takes them


class Aborted(grpc.aio.AbortError):
    """How a call ended that has no reply."""

    def __init__(self, code, reason):
        super().__init__(f"{code} {reason}")
        self.code, self.reason = code, reason


class FakeContext:
    """A call without a network."""

    def time_remaining(self):
        return None

    def invocation_metadata(self):
        return ()

    def peer(self):
        return "ipv4:127.0.0.1:1"

    def auth_context(self):
        return {}

    async def send_initial_metadata(self, metadata):
        pass

    async def abort(self, code, message, trailing_metadata=()):
        from google.rpc import error_details_pb2, status_pb2

        info = error_details_pb2.ErrorInfo()
        for key, value in trailing_metadata:
            if key == "grpc-status-details-bin":
                status_pb2.Status.FromString(value).details[0].Unpack(info)
        raise Aborted(code.name, info.reason)


class InProcessService:
    """The whole service but gRPC, on an event loop of its own."""

    def __init__(self):
        from guardrail.server import contract

        self._stack = AsyncExitStack()
        self._loop = asyncio.new_event_loop()
        folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory()))
        (folder / "policies" / "coin").mkdir(parents=True)
        (folder / "policies" / "coin" / "policy.yaml").write_text(COIN)
        self._servicer = self._loop.run_until_complete(self._start(folder))
        service = contract.POOL.FindServiceByName(contract.SERVICE)
        self.methods = sorted(m.name for m in service.methods if not m.server_streaming)
        self._model = Model([parse_policy(COIN)])

    async def _start(self, folder):
        from guardrail.server.admission import Door
        from guardrail.server.awaiting import Awaiting
        from guardrail.server.following import Following
        from guardrail.server.kernel import KernelThread
        from guardrail.server.metrics import Metrics
        from guardrail.server.registry import Registry
        from guardrail.server.security.gate import Gate
        from guardrail.server.service import Service
        from guardrail.server.servicer import Servicer
        from guardrail.server.settings import ServerSettings
        from guardrail.server.watchers import Watchers
        from guardrail.server.writer import Writer
        from guardrail.store import open_store

        settings = ServerSettings(policies=(folder / "policies",), store=folder / "guardrail.db", max_worlds=50)
        metrics = Metrics()
        store = open_store(settings.store)
        writer = Writer(store, metrics, max_waiting_reports=10_000, max_unwritten_decisions=10_000)
        registry = Registry(settings, store, writer, KernelThread(5.0), metrics)
        await registry.load()
        following = Following(registry, store.follow())
        awaiting = Awaiting(registry, writer, store, metrics)
        service = Service(registry, writer, store, Watchers(4), following, metrics, awaiting)
        return Servicer(service, Gate(), metrics, Door(100))

    def call(self, method, data):
        """One call from its bytes to its reply's, compared with what the guards say."""
        self._loop.run_until_complete(self._call(method, data))

    async def _call(self, method, data):
        try:
            reply = await getattr(self._servicer, method)(data, FakeContext())
        except Aborted as ended:
            self._model.refused(method, data, ended.code, ended.reason)
        else:
            self._model.answered(method, data, reply.SerializeToString())


@functools.cache
def in_process_service() -> InProcessService:
    """The service that all inputs of a run go to."""
    return InProcessService()


def fuzz_request(data: bytes) -> None:
    """The first byte picks the RPC, the rest is the request."""
    service = in_process_service()
    if data:
        service.call(service.methods[data[0] % len(service.methods)], data[1:])


# ---------------------------------------------------------------- policies and expressions

_LINE_BREAK = re.compile("\r\n|[\n\r\u0085\u2028\u2029]")


def check_document(text: str):
    """A document is a policy that can be linted, or every problem has its place; and it takes little time.

    Returns:
        The policy; None if it is none.
    """
    started = time.process_time()
    policy, problems = None, ()
    try:
        policy = parse_policy(text)
    except PolicyError as error:
        problems = error.problems
    if policy is None:
        assert problems
        lines = len(_LINE_BREAK.findall(text)) + 1
        assert all(0 <= p.line <= lines + 1 and p.column >= 0 and p.message for p in problems)
    else:
        assert all(p.line >= 1 and p.column >= 1 for p in lint(policy))
        assert parse_policy(policy.document).revision == policy.revision
    assert time.process_time() - started < SECONDS_FOR_A_DOCUMENT
    return policy


def fuzz_policy(data: bytes) -> None:
    """A policy document."""
    check_document(data[: 2**16].decode("utf-8", "replace"))


@functools.cache
def _environment() -> Environment:
    fields = {
        "x": FieldSpec(type="number"),
        "n": FieldSpec(type="integer"),
        "b": FieldSpec(type="bool"),
        "s": FieldSpec(type="string", optional=True),
        "v": FieldSpec(type="list", length=3),
    }
    return Environment({"context": fields, "action": fields})


INPUTS = [
    {"context": {}, "action": {}},
    {
        "context": {"x": 1.5, "n": 3, "b": True, "s": "a\u00e9", "v": [1.0, -2.0, 3.0]},
        "action": {"x": math.nextafter(0, 1), "n": -(2**63), "b": False, "v": [0.0, 1e308, -0.0]},
    },
]


def fuzz_expression(data: bytes) -> None:
    """A CEL expression: checked, then run on inputs that fit and on empty ones."""
    text = data[:2_000].decode("utf-8", "replace")
    checked = _environment().check(text)
    if not isinstance(checked, CheckedExpression):
        assert checked
        assert all(0 <= finding.offset <= len(text) and finding.message for finding in checked)
        return
    for inputs in INPUTS:
        try:
            checked.program.evaluate(inputs)
        except EvaluationError:
            continue


# ---------------------------------------------------------------- snapshots

SNAPSHOT_POLICIES = ("exploding-bandit", "reactor-temperature")


@functools.cache
def snapshot_judges() -> list[Judge]:
    """Judges of three kinds of oracle."""
    judges = [Judge(parse_policy(COIN))]
    judges += [Judge(load_policy(ROOT / "policies" / name / "policy.yaml")) for name in SNAPSHOT_POLICIES]
    return judges


def a_dump(judge: Judge) -> dict[str, np.ndarray]:
    """The arrays of a state with one observation."""
    row = np.zeros((1, judge.oracle.row_length))
    return judge.oracle.dump(judge.oracle.observe(judge.oracle.init(), row, np.zeros(1)))


_TYPES = ("f8", "f4", "i8", "i4", "u8", "b1", "c16", "U1", "S2")


def altered(arrays: dict[str, np.ndarray], data: bytes) -> dict[str, np.ndarray]:
    """Arrays after the alterations that some bytes spell, four each: which array, what, where, with what."""
    arrays = {name: np.array(array) for name, array in arrays.items()}
    for which, what, where, value in zip(*[iter(data)] * 4, strict=False):
        if not arrays:
            break
        name = sorted(arrays)[which % len(arrays)]
        array = arrays[name]
        match what % 8:
            case 0:
                del arrays[name]
            case 1:
                arrays[f"{name}{chr(value)}"] = arrays.pop(name)
            case 2:
                with (
                    suppress(ValueError, SystemError),
                    np.errstate(all="ignore"),
                    warnings.catch_warnings(action="ignore"),
                ):
                    arrays[name] = array.astype(_TYPES[value % len(_TYPES)])
            case 3:
                arrays[name] = array.reshape(-1)[: where % (array.size + 1)]
            case 4 if array.size < 10_000:
                arrays[name] = np.stack([array] * (1 + value % 3))
            case 5 if array.size and array.dtype.kind in "fiu":
                odd = [math.nan, math.inf, -math.inf, -1, 0, 2**62, 1e308, value]
                with np.errstate(all="ignore"), warnings.catch_warnings(action="ignore"):
                    array.reshape(-1)[where % array.size] = np.asarray(odd[value % len(odd)]).astype(array.dtype)
            case _ if array.nbytes:
                array = np.ascontiguousarray(array)
                array.view(np.uint8).reshape(-1)[where % array.nbytes] ^= value
                arrays[name] = array
    return arrays


def fuzz_snapshot(data: bytes) -> None:
    """The first byte picks the oracle. If the next is odd the rest is a snapshot, else it alters a good one's arrays.

    Such a snapshot is refused, or is a state whose bounds are probabilities or failures.
    """
    judges = snapshot_judges()
    if len(data) < 2:
        return
    judge = judges[data[0] % len(judges)]
    oracle = judge.oracle
    payload = data[2:] if data[1] % 2 else encode_snapshot(altered(a_dump(judge), data[2:]))
    try:
        state = oracle.load(decode_snapshot(payload))
    except SnapshotInvalid:
        return
    assert oracle.count(state) >= 0
    for bound in oracle.bound(state, np.zeros((1, oracle.row_length))):
        assert bound.failure is not None or 0.0 <= bound.value <= 1.0
    oracle.summary(state)
    state = oracle.observe(state, np.zeros((1, oracle.row_length)), np.zeros(1))


TARGETS = {
    "reply": fuzz_reply,
    "request": fuzz_request,
    "policy": fuzz_policy,
    "expression": fuzz_expression,
    "snapshot": fuzz_snapshot,
}
