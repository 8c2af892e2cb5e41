import asyncio
import functools
import inspect
import math
import typing

import grpc
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from guardrail.client import _escalations
from guardrail.client.aio import AsyncClient
from guardrail.client.sync import Client
from guardrail.domain import Decision
from guardrail.errors import ActionBlocked, NoVerdict, ServiceError
from guardrail.v1 import guardrail_pb2 as pb
from guardrail.wire import struct_to_dict, value_to_plain

ACCEPT = pb.Verdict(
    decision=1,
    harm_bound=0.05,
    threshold=0.2,
    policy="p",
    world="w",
    decision_id="d1",
    policy_revision="r1",
    guarantee=pb.Guarantee(kind=pb.GUARANTEE_KIND_NONE),
)


class FakeChannel:
    """A transport without a network: every RPC is answered with the same bytes."""

    def __init__(self, reply=None):
        self.reply = pb.CheckActionResponse(verdict=ACCEPT).SerializeToString() if reply is None else reply
        self.asked, self.reported = [], []

    def unary_unary(self, path, serialize, _):
        def call(request, timeout, metadata):
            request = type(request).FromString(serialize(request))
            if path.endswith("/CheckAction"):
                self.asked.append(request)
                return self.reply
            self.reported.append(request)
            return pb.ReportOutcomeResponse(result=pb.ReportResult(posterior_revision=1)).SerializeToString()

        return call

    def close(self):
        pass

    @property
    def actions(self):
        return [struct_to_dict(request.action) for request in self.asked]

    @property
    def contexts(self):
        return [struct_to_dict(request.context) for request in self.asked]


class FakeAsyncChannel(FakeChannel):
    def unary_unary(self, path, serialize, _):
        call = super().unary_unary(path, serialize, _)

        async def later(request, timeout, metadata):  # noqa: ASYNC109
            await asyncio.sleep(0)
            return call(request, timeout, metadata)

        return later


@pytest.fixture
def channel():
    return FakeChannel()


@pytest.fixture
def client(channel):
    return Client("nowhere", channel=channel)


@pytest.fixture
def async_channel():
    return FakeAsyncChannel()


@pytest.fixture
def async_client(async_channel):
    return AsyncClient("nowhere", channel=async_channel)


def reply(**changes):
    message = pb.Verdict()
    message.CopyFrom(ACCEPT)
    for name, value in changes.items():
        setattr(message, name, value)
    return pb.CheckActionResponse(verdict=message).SerializeToString()


# ---------------------------------------------------------------- over real grpc


def test_an_accepted_call_runs_and_is_reported(connect, service, answers):
    service.on("CheckAction", answers.check())
    service.on("ReportOutcome", pb.ReportOutcomeResponse(result=pb.ReportResult(posterior_revision=1)))
    client = connect(service.target)
    ran = []

    def send(to, amount=5):
        ran.append((to, amount))
        return {"ok": True}

    guarded = client.guard(send, context={"hour": 3}, report=lambda result: {"harmed": not result["ok"]})
    assert guarded("bob") == {"ok": True}
    assert ran == [("bob", 5)]
    request = service.requests["CheckAction"][0]
    assert struct_to_dict(request.action) == {"to": "bob", "amount": 5.0}
    assert struct_to_dict(request.context) == {"hour": 3.0}
    report = service.requests["ReportOutcome"][0].report
    assert (report.observation_id, value_to_plain(report.outcome)) == ("d1", {"harmed": False})
    assert (report.action, report.context) == (request.action, request.context)


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ({"decision": 2}, "ACTION_REJECT"),
        ({"decision": 3}, "ACTION_ESCALATE"),
        ({"decision": 0}, "ACTION_REJECT"),
        ({"decision": 9}, "ACTION_REJECT"),
        ({"harm_bound": math.nan}, "ACTION_REJECT"),
        ({"harm_bound": 0.3}, "ACTION_REJECT"),
        ({"world": "v"}, "MALFORMED_REPLY"),
        (grpc.StatusCode.INTERNAL, "INTERNAL"),
        (grpc.StatusCode.UNAVAILABLE, "UNREACHABLE"),
        (None, "DEADLINE_EXCEEDED"),
    ],
    ids=str,
)
def test_without_an_accept_nothing_runs(connect, service, answers, script, reason):
    if isinstance(script, dict):
        service.on("CheckAction", answers.check(**script))
    else:
        service.on("CheckAction", answers.fail(script) if script else answers.never)
    client = connect(service.target, timeout=30 if script else 0.2)
    ran = []
    with pytest.raises(NoVerdict) as caught:
        client.guard(lambda x: ran.append(x))(1)
    assert caught.value.reason == reason
    assert ran == []
    assert service.requests["ReportOutcome"] == []


# ---------------------------------------------------------------- any reply at all

ANY_FLOAT = st.floats() | st.sampled_from([0.0, 1.0, 0.2, -0.0, math.nan, math.inf])
ANY_VERDICT = st.builds(
    lambda decision, policy, world, **numbers: pb.Verdict(
        decision=decision, policy=policy, world=world, **{n: v for n, v in numbers.items() if v is not None}
    ),
    decision=st.sampled_from([0, 1, 1, 1, 2, 3]) | st.integers(-(2**31), 2**31 - 1),
    policy=st.sampled_from(["p", "p", "p", "q"]),
    world=st.sampled_from(["w", "w", "w", "v"]),
    harm_bound=ANY_FLOAT | st.floats(0, 1),
    threshold=ANY_FLOAT | st.floats(0, 1),
    escalate_above=st.none() | ANY_FLOAT,
    predictive_harm=st.none() | ANY_FLOAT,
    decision_id=st.sampled_from(["d1", "d1", "d1", ""]),
    policy_revision=st.sampled_from(["r1", "r1", "r1", ""]),
    guarantee=st.sampled_from([pb.Guarantee(kind=1, confidence=0.95), pb.Guarantee(kind=4), None]),
)


@given(ANY_VERDICT)
@example(ACCEPT)
@settings(derandomize=True, deadline=None, max_examples=400)
def test_the_callable_runs_only_if_the_message_plainly_accepts(message):
    ran = []
    channel = FakeChannel(pb.CheckActionResponse(verdict=message).SerializeToString())
    guarded = Client("nowhere", channel=channel).guarded("p", "w")(lambda x: ran.append(x))
    try:
        guarded(1)
    except NoVerdict:
        assert ran == []
    else:
        assert ran == [1]
        assert message.decision == pb.DECISION_ACCEPT
        assert 0 <= message.harm_bound <= message.threshold <= 1
        assert not message.HasField("escalate_above") or message.harm_bound <= message.escalate_above
        assert (message.policy, message.world) == ("p", "w")


@given(st.binary(max_size=40) | st.just(b"\x0a\x00") | st.just(reply()[:-3]))
@settings(derandomize=True, deadline=None, max_examples=200)
def test_arbitrary_bytes_never_run_the_callable(data):
    ran = []
    guarded = Client("nowhere", channel=FakeChannel(data)).guarded("p", "w")(lambda: ran.append(1))
    with pytest.raises(NoVerdict):
        guarded()
    assert ran == []


def test_the_verdict_travels_with_the_refusal():
    client = Client("nowhere", channel=FakeChannel(reply(decision=3, harm_bound=0.15)))
    with pytest.raises(ActionBlocked) as caught:
        client.guarded("p", "w")(lambda x: x)(1)
    assert caught.value.verdict.decision is Decision.ESCALATE
    assert caught.value.verdict.harm_bound == 0.15


# ---------------------------------------------------------------- what can be guarded


def test_the_action_is_the_bound_arguments_with_defaults(client, channel):
    @client.guarded("p", "w")
    def act(a, /, b, *rest, c=3, d="x", **more):
        return (a, b, rest, c, d, more)

    assert act(1, 2, 8, 9, c=4, e=True) == (1, 2, (8, 9), 4, "x", {"e": True})
    assert channel.actions == [{"a": 1.0, "b": 2.0, "rest": [8.0, 9.0], "c": 4.0, "d": "x", "more": {"e": True}}]
    with pytest.raises(TypeError, match="missing a required argument: 'b'"):
        act(1)
    assert len(channel.asked) == 1


def test_methods_leave_their_receiver_out(client, channel):
    class Base:
        factor = 2

        @client.guarded("p", "w")
        def scale(self, x):
            return self.factor * x

        @client.guarded("p", "w")
        def gather(*everything):
            return everything

        @classmethod
        @client.guarded("p", "w")
        def make(cls, x):
            return (cls, x)

        @staticmethod
        @client.guarded("p", "w")
        def twice(x):
            return 2 * x

    class Derived(Base):
        factor = 3

        def scale(self, x):
            return super().scale(x + 1)

    derived = Derived()
    assert Base().scale(5) == 10
    assert derived.scale(5) == 18
    assert Base.scale(derived, 5) == 15
    assert derived.gather(1, 2) == (derived, 1, 2)
    assert Derived.make(5) == (Derived, 5)
    assert derived.twice(5) == 10
    assert channel.actions == [{"x": 5.0}, {"x": 6.0}, {"x": 5.0}, {"everything": [1.0, 2.0]}, {"x": 5.0}, {"x": 5.0}]


def test_an_argument_that_is_merely_called_self_is_checked(client, channel):
    @client.guarded("p", "w")
    def act(self, x):
        return x

    act(1, 2)
    assert channel.actions == [{"self": 1.0, "x": 2.0}]
    with pytest.raises(NoVerdict, match=r"action\.self: object"):
        act(object(), 2)


def test_bound_methods_lambdas_and_callable_objects(client, channel):
    class Tool:
        def run(self, x):
            return x + 1

        def __call__(self, y):
            return y + 2

    guard = client.guarded("p", "w")
    assert guard(Tool().run)(1) == 2
    assert guard(Tool())(1) == 3
    assert guard(lambda z: z)(1) == 1
    assert guard(Tool)().run(1) == 2
    assert channel.actions == [{"x": 1.0}, {"y": 1.0}, {"z": 1.0}, {}]


def test_what_a_partial_fixes_is_checked_too(client, channel):
    def send(to, amount, note=""):
        return (to, amount, note)

    inner = functools.partial(send, "bob", note="hi")
    assert client.guarded("p", "w")(functools.partial(inner, note="ho"))(5) == ("bob", 5, "ho")
    assert client.guarded("p", "w")(inner)(amount=6, note="!") == ("bob", 6, "!")
    assert channel.actions == [{"to": "bob", "amount": 5.0, "note": "ho"}, {"to": "bob", "amount": 6.0, "note": "!"}]


def test_a_callable_without_a_signature_needs_an_action(client, channel):
    with pytest.raises(TypeError, match="give guarded an action="):
        client.guarded("p", "w")(max)
    guarded = client.guarded("p", "w", action=lambda *args: {"count": len(args)})(max)
    assert guarded(1, 3, 2) == 3
    assert channel.actions == [{"count": 3.0}]


def test_action_and_context_are_made_from_the_arguments(client, channel):
    hours = iter([1, 2])

    @client.guarded(
        "p",
        "w",
        action=lambda to, amount: {"size": amount * 2},
        context=lambda to, amount: {"to": to, "h": next(hours)},
    )
    def send(to, amount):
        return to

    send("bob", 3)
    send(amount=4, to="eve")
    assert channel.actions == [{"size": 6.0}, {"size": 8.0}]
    assert channel.contexts == [{"to": "bob", "h": 1.0}, {"to": "eve", "h": 2.0}]


def test_an_action_or_context_that_fails_stops_the_call(client, channel):
    ran = []
    for options, error in (
        ({"action": lambda x: 1 / 0}, ZeroDivisionError),
        ({"action": lambda x: None}, NoVerdict),
        ({"action": lambda x: {"x": {x}}}, NoVerdict),
        ({"context": lambda x: [x]}, NoVerdict),
        ({"context": {"now": object()}}, NoVerdict),
    ):
        with pytest.raises(error):
            client.guarded("p", "w", **options)(ran.append)(1)
    assert ran == []
    assert channel.asked == []


def test_what_is_asked_is_a_copy_from_before_the_call(client, channel):
    items = [1]

    @client.guarded("p", "w", report=lambda result: True)
    def act(items):
        items.append(2)
        return True

    act(items)
    assert channel.actions == [{"items": [1.0]}]
    assert struct_to_dict(channel.reported[0].report.action) == {"items": [1.0]}


def test_the_context_is_read_anew_for_each_call(client, channel):
    state = {"level": 1}
    act = client.guarded("p", "w", context=state)(lambda: None)
    act()
    state["level"] = 2
    act()
    assert channel.contexts == [{"level": 1.0}, {"level": 2.0}]


def test_metadata_is_kept_without_a_way_around(client):
    @functools.lru_cache
    def inner(x: "Decision", y: int = 1) -> "str":
        """What it does."""

    def act(x: "Decision", y: int = 1) -> "str":
        """What it does."""
        return "ran"

    act.tag = "t"
    guarded = client.guarded("p", "w")(act)
    assert (guarded.__name__, guarded.__doc__, guarded.__module__) == ("act", act.__doc__, __name__)
    assert guarded.__qualname__ == act.__qualname__
    assert guarded.tag == "t"
    assert list(inspect.signature(guarded).parameters) == ["x", "y"]
    assert typing.get_type_hints(guarded) == {"x": Decision, "y": int, "return": str}
    assert inspect.unwrap(guarded) is guarded
    assert inspect.unwrap(client.guarded("p", "w")(inner)).__name__ == "inner"
    assert not hasattr(client.guarded("p", "w")(inner), "__wrapped__")
    assert not hasattr(act, "__signature__")


def test_annotations_that_cannot_be_resolved_stay_text(client):
    def act(x: "NoSuchType"):  # noqa: F821
        return x

    guarded = client.guarded("p", "w")(act)
    assert inspect.signature(guarded).parameters["x"].annotation == "NoSuchType"
    assert guarded(1) == 1


# ---------------------------------------------------------------- what cannot


async def coroutine(x=1):
    return x


def generator(x=1):
    yield x


async def async_generator(x=1):
    yield x


class CallsLater:
    async def __call__(self, x=1):
        return x

    async def method(self, x=1):
        return x

    def generating(self):
        yield 1


@pytest.mark.parametrize(
    "function",
    [coroutine, CallsLater(), CallsLater().method, functools.partial(functools.partial(coroutine), 1)],
    ids=["function", "object", "method", "partial"],
)
def test_coroutine_functions_are_for_the_asyncio_client(client, async_client, async_channel, function):
    with pytest.raises(TypeError, match="coroutine function; guard it with AsyncClient"):
        client.guarded("p", "w")(function)
    guarded = async_client.guarded("p", "w")(function)
    assert inspect.iscoroutinefunction(guarded)
    assert asyncio.run(guarded()) == 1
    assert async_channel.actions == [{"x": 1.0}]


@pytest.mark.parametrize(
    "function",
    [generator, async_generator, CallsLater().generating, functools.partial(generator, 1)],
    ids=["generator", "async generator", "method", "partial"],
)
def test_generators_are_refused_by_both(client, async_client, function):
    for refusing in (client, async_client):
        with pytest.raises(TypeError, match="generator function"):
            refusing.guarded("p", "w")(function)


def test_plain_functions_are_for_the_synchronous_client(async_client):
    for function in (lambda: 1, print, CallsLater):
        with pytest.raises(TypeError, match="AsyncClient guards coroutine functions"):
            async_client.guarded("p", "w")(function)


def test_what_is_no_function_is_refused(client, async_client):
    for refusing in (client, async_client):
        for thing in (staticmethod(generator), classmethod(generator)):
            with pytest.raises(TypeError, match="put guarded below @"):
                refusing.guarded("p", "w")(thing)
        for thing in (1, None, property(print)):
            with pytest.raises(TypeError, match="cannot be called"):
                refusing.guarded("p", "w")(thing)


def test_a_cancelled_check_runs_nothing(async_client):
    ran = []

    @async_client.guarded("p", "w")
    async def act():
        ran.append(1)

    async def cancel():
        task = asyncio.ensure_future(act())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(cancel())
    assert ran == []


# ---------------------------------------------------------------- reporting


def test_no_outcome_yet_reports_nothing(client, channel):
    act = client.guarded("p", "w", report=lambda result: result)(lambda x: x)
    act(None)
    assert channel.reported == []
    act(False)
    assert channel.reported[0].report.outcome.bool_value is False
    assert channel.reported[0].report.outcome.WhichOneof("kind") == "bool_value"


def test_a_call_that_raises_reports_nothing(client, channel):
    act = client.guarded("p", "w", report=lambda result: True)(lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        act()
    assert channel.reported == []


def test_a_report_that_fails_says_that_the_action_was_carried_out(connect, service, answers):
    service.on("CheckAction", answers.check())
    service.on("ReportOutcome", answers.fail(grpc.StatusCode.INTERNAL, "disk full", "STORE_UNAVAILABLE"))
    ran = []
    act = connect(service.target).guard(lambda: ran.append(1), report=lambda result: True)
    with pytest.raises(ServiceError, match="disk full") as caught:
        act()
    assert ran == [1]
    assert caught.value.__notes__ == ["The action was carried out, but its outcome is not reported (decision d1)."]


# ---------------------------------------------------------------- sessions


def test_guarded_sends_the_session_or_what_is_made_of_the_arguments():
    channel = FakeChannel()
    client = Client("nowhere", channel=channel)
    client.guarded("p", "w", session="fixed")(lambda order: order)(1)
    client.guarded("p", "w", session=lambda order: f"order-{order}")(lambda order: order)(51)
    client.guarded("p", "w")(lambda order: order)(1)
    assert [request.session for request in channel.asked] == ["fixed", "order-51", ""]


async def guarded_async(channel):
    async with AsyncClient("nowhere", channel=channel) as client:

        async def act(order):
            return order

        await client.guarded("p", "w", session=lambda order: f"order-{order}")(act)(7)


def test_the_asyncio_client_does_the_same():
    class Closing(FakeAsyncChannel):
        async def close(self):
            pass

    channel = Closing()
    asyncio.run(guarded_async(channel))
    assert [request.session for request in channel.asked] == ["order-7"]


# ---------------------------------------------------------------- waiting for a person


def rejected(code):
    return {"decision": pb.DECISION_REJECT, "reasons": [pb.Reason(code=code)]}


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setattr(_escalations, "APPROVAL_POLL_SECONDS", 0.001)


def test_an_escalated_call_runs_once_a_person_approved_it(connect, service, answers, impatient):
    approval = pb.Approval(escalation_id="d1", approver="person")
    service.on(
        "CheckAction",
        answers.check(decision=pb.DECISION_ESCALATE, escalate_above=0.01),
        *[answers.check(**rejected("APPROVAL_PENDING"), decision_id=f"p{n}") for n in range(3)],
        answers.check(decision_id="d5", approval=approval, escalate_above=0.01),
    )
    ran = []
    assert connect(service.target).guard(lambda to: ran.append(to), approval_wait=60)("bob") is None
    assert ran == ["bob"]
    assert [request.approval for request in service.requests["CheckAction"]] == ["", "d1", "d1", "d1", "d1"]


@pytest.mark.parametrize(
    "code", ["APPROVAL_DENIED", "APPROVAL_EXPIRED", "APPROVAL_USED", "APPROVAL_MISMATCH", "HARM_BOUND_ABOVE_REJECT"]
)
def test_any_other_answer_ends_the_wait(connect, service, answers, impatient, code):
    service.on("CheckAction", answers.check(decision=pb.DECISION_ESCALATE), answers.check(**rejected(code)))
    ran = []
    with pytest.raises(ActionBlocked) as caught:
        connect(service.target).guard(lambda to: ran.append(to), approval_wait=60)("bob")
    assert caught.value.verdict.reasons[0].code == code
    assert (ran, len(service.requests["CheckAction"])) == ([], 2)


def test_a_wait_that_ends_names_the_escalation(connect, service, answers, impatient):
    escalated = answers.check(decision=pb.DECISION_ESCALATE)
    service.on("CheckAction", escalated, answers.check(**rejected("APPROVAL_PENDING"), decision_id="p"))
    ran = []
    with pytest.raises(ActionBlocked) as caught:
        connect(service.target).guard(lambda to: ran.append(to), approval_wait=0.05)("bob")
    assert (caught.value.verdict.decision, caught.value.verdict.decision_id) == (Decision.ESCALATE, "d1")
    assert ran == []


def test_a_call_that_fails_meanwhile_is_no_verdict(connect, service, answers, impatient):
    failure = answers.fail(grpc.StatusCode.DATA_LOSS, "lost", "STORE_CORRUPT")
    service.on("CheckAction", answers.check(decision=pb.DECISION_ESCALATE), failure)
    ran = []
    with pytest.raises(NoVerdict) as caught:
        connect(service.target).guard(lambda to: ran.append(to), approval_wait=60)("bob")
    assert (caught.value.reason, ran) == ("STORE_CORRUPT", [])


@pytest.mark.parametrize("given", ["", "other"])
def test_an_accept_by_an_approval_that_was_not_named_is_malformed(connect, service, answers, given):
    service.on("CheckAction", answers.check(approval=pb.Approval(escalation_id="d1"), escalate_above=0.01))
    with pytest.raises(NoVerdict) as caught:
        connect(service.target).check(policy="p", world="w", context={}, action={}, approval=given)
    assert caught.value.reason == "MALFORMED_REPLY"


def test_an_approval_never_lifts_the_threshold(connect, service, answers):
    service.on("CheckAction", answers.check(approval=pb.Approval(escalation_id="d1"), harm_bound=0.3))
    verdict = connect(service.target).check(policy="p", world="w", context={}, action={}, approval="d1")
    assert verdict.decision is Decision.REJECT


@pytest.mark.parametrize("method", ["escalations", "resolve_escalation"])
def test_what_is_no_escalation_is_malformed(connect, service, answers, method):
    """No known state, another escalation, or the opposite of what was said."""
    good = {"escalation_id": "e", "digest": "d", "state": pb.ESCALATION_STATE_APPROVED}
    client = connect(service.target)
    bad = [{"state": 99}, {"state": 0}]
    if method == "resolve_escalation":
        bad += [{"escalation_id": "f"}, {"digest": "f"}, {"state": pb.ESCALATION_STATE_DENIED}]
    for change in [{}, *bad]:
        one = pb.Escalation(**{**good, **change})
        service.on("ListEscalations", pb.ListEscalationsResponse(escalations=[one]))
        service.on("ResolveEscalation", pb.ResolveEscalationResponse(escalation=one))

        def ask():
            if method == "escalations":
                return client.escalations()
            return client.resolve_escalation("e", digest="d", approve=True)

        if not change:
            ask()
            continue
        with pytest.raises(ServiceError) as caught:
            ask()
        assert caught.value.reason == "MALFORMED_REPLY"
