"""A service that answers what a test tells it to, over real grpc, and both clients behind one face."""

import asyncio
import collections
import inspect
import threading
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from guardrail.client.aio import AsyncClient
from guardrail.client.sync import Client
from guardrail.v1 import guardrail_pb2 as pb


class Fail:
    """An answer that is a status; with a reason it carries a google.rpc.ErrorInfo."""

    def __init__(self, code, message="it failed", reason=None, retry_after=None):
        self.code, self.message, self.reason, self.retry_after = code, message, reason, retry_after

    def abort(self, context):
        if self.reason is None:
            context.abort(self.code, self.message)
        detail = any_pb2.Any()
        detail.Pack(error_details_pb2.ErrorInfo(reason=self.reason, domain="guardrail"))
        status = status_pb2.Status(code=self.code.value[0], message=self.message, details=[detail])
        if self.retry_after is not None:
            retry = error_details_pb2.RetryInfo()
            retry.retry_delay.FromNanoseconds(round(1e9 * self.retry_after))
            status.details.add().Pack(retry)
        context.abort_with_status(rpc_status.to_status(status))


class Never:
    """An answer that does not come before the call ends."""


class FakeService(grpc.GenericRpcHandler):
    """Answers each RPC from its own list of answers; the last one is repeated."""

    def __init__(self):
        self.answers, self.requests = {}, collections.defaultdict(list)
        self.metadata, self.watchers = [], threading.Semaphore(0)
        self.stopped = threading.Event()

    def on(self, method, *answers):
        """Script an RPC; an answer is a message, bytes, Fail, Never, or a list of these for a stream."""
        self.answers[method] = collections.deque(answers)

    def service(self, call):
        method = call.method.rpartition("/")[2]
        self.metadata.append(dict(call.invocation_metadata))
        if method == "WatchDecisions":
            return grpc.unary_stream_rpc_method_handler(lambda request, context: self.stream(method, request, context))
        return grpc.unary_unary_rpc_method_handler(lambda request, context: self.answer(method, request, context))

    def next(self, method, request):
        self.requests[method].append(getattr(pb, f"{method}Request").FromString(request))
        answers = self.answers[method]
        return answers.popleft() if len(answers) > 1 else answers[0]

    def answer(self, method, request, context):
        return self.give(self.next(method, request), context)

    def stream(self, method, request, context):
        self.watchers.release()
        for answer in self.next(method, request):
            yield self.give(answer, context)

    def give(self, answer, context):
        if isinstance(answer, Never):
            ended = threading.Event()
            if context.add_callback(ended.set):
                ended.wait(60)
            return b""
        if isinstance(answer, Fail):
            answer.abort(context)
        return answer if isinstance(answer, bytes) else answer.SerializeToString()


@pytest.fixture
def service():
    """A FakeService with its address as `target`."""
    handler = FakeService()
    options = [("grpc.so_reuseport", 0), ("grpc.max_receive_message_length", -1)]
    server = grpc.server(ThreadPoolExecutor(4), handlers=[handler], options=options)
    handler.target = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    yield handler
    server.stop(None).wait()


class Face:
    """Either client with synchronous calls: `face.check(...)` runs to its end, iterators become lists."""

    def __init__(self, kind, runner, target, options):
        self.kind, self.runner = kind, runner
        self.client = (Client if kind == "sync" else AsyncClient)(target, **options)

    def __getattr__(self, name):
        method = getattr(self.client, name)

        def call(*args, **kwargs):
            return self.finish(method(*args, **kwargs))

        return call

    def finish(self, result):
        if inspect.isasyncgen(result):
            result = collected(result)
        if inspect.iscoroutine(result):
            return self.runner.run(result)
        return list(result) if inspect.isgenerator(result) else result

    def guard(self, function, *args, **options):
        """The function (made a coroutine function for asyncio) guarded, as a plain callable."""
        if self.kind == "sync":
            return self.client.guarded("p", "w", *args, **options)(function)

        async def doing(*args, **kwargs):
            return function(*args, **kwargs)

        doing.__signature__ = inspect.signature(function)
        wrapped = self.client.guarded("p", "w", *args, **options)(doing)
        return lambda *args, **kwargs: self.runner.run(wrapped(*args, **kwargs))


async def collected(iterator):
    return [item async for item in iterator]


@pytest.fixture(params=["sync", "asyncio"])
def connect(request):
    """Makes a Face for a target; each test runs once with each client."""
    faces = []
    with asyncio.Runner() as runner:

        def connect(target, **options):
            faces.append(Face(request.param, runner, target, {"timeout": 30, **options}))
            return faces[-1]

        yield connect
        for face in faces:
            face.close()


@pytest.fixture
def client(connect, service):
    """A client of the fake service with a deadline that no test waits for."""
    return connect(service.target)


def verdict_message(**changes):
    fields = {
        "decision": pb.DECISION_ACCEPT,
        "harm_bound": 0.05,
        "threshold": 0.2,
        "policy": "p",
        "world": "w",
        "policy_revision": "a" * 64,
        "decision_id": "d1",
        "guarantee": pb.Guarantee(kind=pb.GUARANTEE_KIND_NONE),
        "posterior_revision": 3,
    }
    return pb.Verdict(**{**fields, **changes})


@pytest.fixture
def answers():
    """The vocabulary of the tests: Fail, Never, and a check's reply from a verdict's fields."""

    class Answers:
        fail, never = Fail, Never()
        verdict = staticmethod(verdict_message)

        @staticmethod
        def check(**changes):
            return pb.CheckActionResponse(verdict=verdict_message(**changes))

    return Answers
