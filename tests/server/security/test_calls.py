"""What callers may do with a real service: every method under every role, and what is left out of answers."""

import contextlib
import threading
import time

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_status import rpc_status
from security_files import JWT

import guardrail
from guardrail.errors import (
    DecisionNotFound,
    LimitExceeded,
    NoVerdict,
    PermissionDenied,
    PolicyNotFound,
    ServiceError,
    Unauthenticated,
)
from guardrail.server import contract
from guardrail.server.security.grants import RULES, Role
from guardrail.v1 import guardrail_pb2 as pb

METHODS = {m.name: m for m in contract.POOL.FindServiceByName(contract.SERVICE).methods}
LOW = {"kind": "low"}
GARBAGE = b"\xff\xff\xff not a message"


@contextlib.contextmanager
def raw(service):
    """call(method, data, *metadata) -> the reason with which the call ended; "OK" if it has an answer."""
    with grpc.insecure_channel(f"127.0.0.1:{service.port}") as channel:

        def call(method, data, *metadata):
            path = f"/{contract.SERVICE}/{method}"
            streams = method in METHODS and METHODS[method].server_streaming
            make = channel.unary_stream if streams else channel.unary_unary
            try:
                answer = make(path)(data, metadata=metadata, timeout=20)
                if streams:
                    # Headers alone mean that it began; an error comes without them, or after empty ones.
                    dict(answer.initial_metadata())
                    if not answer.is_active():
                        next(answer)
                    answer.cancel()
            except grpc.RpcError as error:
                return reason_of(error)
            return "OK"

        yield call


def reason_of(error):
    status, info = rpc_status.from_call(error), error_details_pb2.ErrorInfo()
    assert status is not None, error
    assert status.details[0].Unpack(info)
    return info.reason


def bearer(key, name="authorization"):
    return (name, f"Bearer {key}")


def request_for(method, world="w"):
    fields = {"policy": "coin", "world": world}
    made = {
        "CheckAction": lambda: pb.CheckActionRequest(**fields, action={"kind": "low"}),
        "CheckActions": lambda: pb.CheckActionsRequest(**fields, actions=[{"kind": "low"}]),
        "ReportOutcome": lambda: pb.ReportOutcomeRequest(**fields, report=report_message()),
        "ReportOutcomes": lambda: pb.ReportOutcomesRequest(**fields, reports=[report_message()]),
        "GetWorld": lambda: pb.GetWorldRequest(**fields),
        "GetSession": lambda: pb.GetSessionRequest(**fields, session="s"),
        "ResolveEscalation": lambda: pb.ResolveEscalationRequest(
            escalation_id="none", digest="0" * 64, resolution=pb.RESOLUTION_DENY
        ),
        "GetDecision": lambda: pb.GetDecisionRequest(decision_id="none"),
        "ReportNotTaken": lambda: pb.ReportNotTakenRequest(**fields, decision_ids=["none"]),
        "GetPolicy": lambda: pb.GetPolicyRequest(name="coin"),
        "ValidatePolicy": lambda: pb.ValidatePolicyRequest(document="x"),
        "ResetWorld": lambda: pb.ResetWorldRequest(**fields, generation=1, reason="because"),
    }
    return made.get(method, lambda: getattr(pb, f"{method}Request")())().SerializeToString()


def report_message():
    message = pb.Report(observation_id="a", action={"kind": "low"})
    message.outcome.bool_value = False
    return message


@pytest.fixture
def secured(start_service, callers):
    """A service with one caller for each role, named as the role is."""
    for role in Role:
        callers.add(role.value, role.value)
    return start_service(callers=callers.write())


@pytest.fixture
def as_caller(callers):
    """as_caller(service, name) -> a client with that caller's key."""
    with contextlib.ExitStack() as stack:

        def make(service, name, **options):
            return stack.enter_context(service.client(token=callers.keys[name], **options))

        yield make


# ---------------------------------------------------------------- before the request is read


def test_every_method_under_every_role(secured, callers):
    """Refused calls carry bytes that are no message: what refuses them has not read them."""
    with raw(secured) as call:
        for method in METHODS:
            assert call(method, GARBAGE) == "CREDENTIALS_MISSING"
            assert call(method, request_for(method)) == "CREDENTIALS_MISSING"
            for role in Role:
                key = bearer(callers.keys[role.value])
                if role in RULES[method].roles:
                    assert call(method, GARBAGE, key) == "INVALID_REQUEST", (method, role)
                    assert call(method, request_for(method), key) not in (
                        "PERMISSION_DENIED",
                        "CREDENTIALS_MISSING",
                        "INVALID_REQUEST",
                        "INTERNAL",
                    ), (method, role)
                else:
                    assert call(method, GARBAGE, key) == "PERMISSION_DENIED", (method, role)
                    assert call(method, request_for(method), key) == "PERMISSION_DENIED", (method, role)


def test_a_method_without_a_rule_is_denied(start_service, callers, monkeypatch):
    from guardrail.server.security import gate, grants

    callers.add("root", ", ".join(Role))
    rules = {name: rule for name, rule in RULES.items() if name != "GetWorld"}
    monkeypatch.setattr(grants, "RULES", rules)
    monkeypatch.setattr(gate, "RULES", rules)
    with raw(start_service(callers=callers.write())) as call:
        assert call("GetWorld", request_for("GetWorld"), bearer(callers.keys["root"])) == "PERMISSION_DENIED"


@pytest.mark.parametrize(
    ("headers", "reason"),
    [
        ([], "CREDENTIALS_MISSING"),
        ([("authorization-key", "Bearer {agent}")], "CREDENTIALS_MISSING"),
        ([("x-caller", "agent")], "CREDENTIALS_MISSING"),
        ([("authorization", "Bearer {agent}")], "OK"),
        ([("authorization", "bearer {agent}")], "OK"),
        ([("authorization", "{agent}")], "CREDENTIALS_INVALID"),
        ([("authorization", "Basic {agent}")], "CREDENTIALS_INVALID"),
        ([("authorization", "Bearer")], "CREDENTIALS_INVALID"),
        ([("authorization", "Bearer  {agent}")], "CREDENTIALS_INVALID"),
        ([("authorization", "Bearer {agent} x")], "CREDENTIALS_INVALID"),
        ([("authorization", "Bearer {agent}x")], "CREDENTIALS_INVALID"),
        ([("authorization", "Bearer {hash}")], "CREDENTIALS_INVALID"),
        ([("authorization", "Bearer a.b.c")], "CREDENTIALS_INVALID"),
        ([("authorization", "Bearer {agent}"), ("authorization", "Bearer {agent}")], "CREDENTIALS_INVALID"),
        ([("authorization", "Bearer {agent}"), ("authorization", "Bearer {viewer}")], "CREDENTIALS_INVALID"),
        ([("authorization", "Bearer {agent}"), ("authorization", "")], "CREDENTIALS_INVALID"),
    ],
)
def test_headers(secured, callers, headers, reason):
    from guardrail.server.security.keys import hash_line

    words = {**callers.keys, "hash": hash_line(callers.keys["agent"])}
    with raw(secured) as call:
        sent = [(name, value.format(**words)) for name, value in headers]
        assert call("CheckAction", request_for("CheckAction"), *sent) == reason


def test_the_grant_comes_before_what_is_wrong_with_the_request(start_service, callers):
    callers.add("narrow", "{roles: [agent, reporter, viewer], policies: [coin], worlds: ['mine/*']}")
    key = bearer(callers.add("narrow2", "{roles: [agent], policies: [other], worlds: ['*']}").keys["narrow"])
    with raw(start_service(callers=callers.write())) as call:
        wrong = pb.CheckActionRequest(policy="coin", world="mine/\nx").SerializeToString()
        assert call("CheckAction", wrong, key) == "INVALID_REQUEST"
        wrong = pb.CheckActionRequest(policy="coin", world="yours/\nx").SerializeToString()
        assert call("CheckAction", wrong, key) == "PERMISSION_DENIED"
        # Whether a policy or a world is there is not told either.
        for policy, world in (("coin", "yours/1"), ("none", "mine/1"), ("", ""), ("none", "none")):
            for method in ("CheckAction", "GetWorld", "ReportOutcome"):
                request = getattr(pb, f"{method}Request")(policy=policy, world=world).SerializeToString()
                assert call(method, request, key) == "PERMISSION_DENIED"
        assert call("GetPolicy", pb.GetPolicyRequest(name="none").SerializeToString(), key) == "PERMISSION_DENIED"
        assert call("CheckAction", request_for("CheckAction", "mine/1"), key) == "OK"


def test_health_stays_open_and_nothing_else_does(secured):
    with grpc.insecure_channel(f"127.0.0.1:{secured.port}") as channel:
        answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(service=""), timeout=20)
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
        for path in (
            f"/{contract.SERVICE}/checkaction",
            f"/{contract.SERVICE}/CheckAction/",
            f"//{contract.SERVICE}/CheckAction",
            "/guardrail.v1.Other/CheckAction",
            "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
            "/",
        ):
            with pytest.raises(grpc.RpcError) as caught:
                channel.unary_unary(path)(request_for("CheckAction"), timeout=20)
            assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED, path


def test_without_a_callers_file_everybody_may_do_everything(service, client):
    assert client.check(policy="coin", world="w", context={}, action=LOW)
    with raw(service) as call:
        for method in METHODS:
            assert call(method, GARBAGE) == "INVALID_REQUEST"
            assert call(method, request_for(method), bearer("whatever")) not in (
                "CREDENTIALS_INVALID",
                "PERMISSION_DENIED",
            )


# ---------------------------------------------------------------- the log


def test_the_log_names_the_caller_and_no_secret(secured, callers, as_caller, capfd):
    verdict = as_caller(secured, "agent").check(policy="coin", world="w", context={}, action=LOW)
    assert as_caller(secured, "viewer").decision(verdict.decision_id).caller == "agent"
    secret = "grk_" + "s3cret" * 8
    with raw(secured) as call:
        for _ in range(50):
            call("CheckAction", b"", bearer(secret))
            call("CheckAction", b"", ("authorization", f"Basic {secret}"))
            call("CheckAction", b"", bearer("eyJ" + secret))
    text = "".join(capfd.readouterr())
    assert text.count("credentials_refused") in range(1, 20)
    assert "s3cret" not in text
    assert not any(key in text for key in callers.keys.values())


def test_clients_get_errors_that_name_no_secret(secured, callers):
    wrong = callers.keys["agent"][:-1]
    with secured.client(token=wrong) as client:
        with pytest.raises(Unauthenticated) as caught:
            client.policies()
        assert caught.value.reason == "CREDENTIALS_INVALID"
        assert wrong not in str(caught.value)
        with pytest.raises(NoVerdict) as caught:
            client.check(policy="coin", world="w", context={}, action=LOW)
        assert caught.value.reason == "CREDENTIALS_INVALID"
    with secured.client() as client, pytest.raises(Unauthenticated) as caught:
        client.policies()
    assert caught.value.reason == "CREDENTIALS_MISSING"


# ---------------------------------------------------------------- answers and streams


VIEW = "{roles: [%s], policies: [%s], worlds: ['%s']}"


@pytest.fixture
def two_worlds(start_service, callers):
    callers.add("all", "{roles: [agent], policies: ['*'], worlds: ['*']}")
    callers.add("reporter", "reporter")
    callers.add("boss", "operator")
    callers.add("left", VIEW % ("viewer", "coin", "left/*"))
    callers.add("approver", VIEW % ("approver", "coin", "left/*"))
    callers.add("elsewhere", VIEW % ("viewer", "other", "*"))
    service = start_service(callers=callers.write())
    with service.client(token=callers.keys["reporter"]) as client:
        for world in ("left/1", "left/2", "right/1"):
            client.report(policy="coin", world=world, context={}, action=LOW, outcome=False)
    return service


def test_lists_hold_what_a_caller_may_see(two_worlds, as_caller):
    left, elsewhere = as_caller(two_worlds, "left"), as_caller(two_worlds, "elsewhere")
    assert [w.world for w in left.worlds()] == ["left/1", "left/2"]
    assert [w.world for w in left.worlds("coin")] == ["left/1", "left/2"]
    assert list(elsewhere.worlds()) == list(elsewhere.worlds("coin")) == []
    assert [p.name for p in left.policies()] == ["coin"]
    assert elsewhere.policies() == ()
    assert left.policy("coin").document
    with pytest.raises(PermissionDenied):
        elsewhere.policy("coin")
    with pytest.raises(PermissionDenied):
        left.world("coin", "right/1")


def test_a_policy_that_is_not_there_tells_nothing_of_those_that_are(two_worlds, as_caller):
    with pytest.raises(PolicyNotFound, match="other") as caught:
        as_caller(two_worlds, "elsewhere").policy("other")
    assert "coin" not in str(caught.value)


def test_pages_hide_what_lies_between(two_worlds, callers):
    page, token = [], ""
    with grpc.insecure_channel(f"127.0.0.1:{two_worlds.port}") as channel:
        call = channel.unary_unary(f"/{contract.SERVICE}/ListWorlds")
        while True:
            request = pb.ListWorldsRequest(page_size=1, page_token=token).SerializeToString()
            data = call(request, metadata=(bearer(callers.keys["left"]),), timeout=20)
            answer = pb.ListWorldsResponse.FromString(data)
            page += [w.world for w in answer.worlds]
            token = answer.next_page_token
            assert "right" not in token
            if not token:
                break
    assert page == ["left/1", "left/2"]


@pytest.mark.parametrize("flushed", [False, True])
def test_a_decision_that_a_caller_may_not_see_is_not_there(two_worlds, as_caller, flushed):
    agent, left = as_caller(two_worlds, "all"), as_caller(two_worlds, "left")
    mine = agent.check(policy="coin", world="left/1", context={}, action=LOW).decision_id
    theirs = agent.check(policy="coin", world="right/1", context={}, action=LOW).decision_id
    if flushed:
        until(lambda: not two_worlds.metric("guardrail_unwritten_decisions"))
    assert left.decision(mine).verdict.world == "left/1"
    for caller in (left, as_caller(two_worlds, "elsewhere"), as_caller(two_worlds, "approver")):
        with pytest.raises(DecisionNotFound) as hidden:
            caller.decision(theirs)
        with pytest.raises(DecisionNotFound) as absent:
            caller.decision("f" * 32)
        assert str(hidden.value).replace(theirs, "") == str(absent.value).replace("f" * 32, "")


def until(condition, seconds=20):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.01)


@pytest.mark.parametrize("name", ["left", "approver"])
def test_streams_hold_what_a_caller_may_see(two_worlds, as_caller, name):
    agent = as_caller(two_worlds, "all")
    with as_caller(two_worlds, name).watch() as watch:
        seen = []
        reader = threading.Thread(target=lambda: seen.extend(next(watch).verdict.decision_id for _ in range(2)))
        watching(two_worlds, 1)
        reader.start()
        wanted = [
            agent.check(policy="coin", world=world, context={}, action=LOW).decision_id
            for world in ("left/1", "right/1", "right/1", "left/2")
        ]
        reader.join(20)
        assert seen == [wanted[0], wanted[3]]


def watching(service, count):
    until(lambda: service.metric("guardrail_watchers") == count)


def test_a_stream_ends_with_its_callers_rights(two_worlds, callers, as_caller):
    agent = as_caller(two_worlds, "all")
    with as_caller(two_worlds, "left").watch() as watch:
        watching(two_worlds, 1)
        first = agent.check(policy="coin", world="left/1", context={}, action=LOW)
        assert next(watch).verdict.decision_id == first.decision_id
        callers.remove("left").write()
        as_caller(two_worlds, "boss").reload_policies(timeout=60)
        agent.check(policy="coin", world="left/1", context={}, action=LOW)
        with pytest.raises(Unauthenticated):
            next(watch)


# ---------------------------------------------------------------- limits


def test_rates(start_service, callers, as_caller):
    callers.add("slow", "agent", extra="limits: {requests_per_second: 0.01, burst: 3}")
    callers.add("fast", "agent")
    service = start_service(callers=callers.write())
    slow = as_caller(service, "slow")
    for _ in range(3):
        slow.check(policy="coin", world="w", context={}, action=LOW)
    with pytest.raises(NoVerdict) as caught:
        slow.check(policy="coin", world="w", context={}, action=LOW)
    assert caught.value.reason == "RATE_LIMITED"
    with pytest.raises(LimitExceeded) as caught:
        slow.policies()
    assert caught.value.reason == "RATE_LIMITED"
    assert 50 < caught.value.retry_after <= 100
    as_caller(service, "fast").check(policy="coin", world="w", context={}, action=LOW)
    with grpc.insecure_channel(f"127.0.0.1:{service.port}") as channel:
        with pytest.raises(grpc.RpcError) as caught:
            # Before the request is read.
            channel.unary_unary(f"/{contract.SERVICE}/CheckAction")(
                GARBAGE, metadata=(bearer(callers.keys["slow"]),), timeout=20
            )
        status, hint = rpc_status.from_call(caught.value), error_details_pb2.RetryInfo()
        assert status.details[1].Unpack(hint)
        assert 50 < hint.retry_delay.seconds <= 100


def tell(client, world, name="a"):
    return client.report(policy="coin", world=world, context={}, action=LOW, outcome=False, observation_id=name)


def test_a_quota_of_worlds_survives_restarts(start_service, callers, as_caller):
    callers.add("few", "reporter", extra="limits: {worlds: 2}").add("many", "reporter").add("none", "reporter")
    callers.add("none", "reporter", extra="limits: {worlds: 0}")
    service = start_service(callers=callers.write())
    few = as_caller(service, "few")
    tell(few, "1")
    tell(few, "2")
    for _ in range(2):
        with pytest.raises(LimitExceeded, match="may bring 2 worlds into being") as caught:
            tell(few, "3")
        assert caught.value.reason == "WORLD_QUOTA"
    tell(few, "1", "b")  # worlds that exist are open
    tell(as_caller(service, "many"), "3")
    tell(few, "3")
    with pytest.raises(LimitExceeded):
        tell(as_caller(service, "none"), "4")
    tell(as_caller(service, "none"), "3", "c")
    service.stop()
    few = as_caller(start_service(callers=callers.path), "few")
    with pytest.raises(LimitExceeded):
        tell(few, "4")
    tell(few, "2", "d")


def test_a_world_that_was_checked_counts_when_it_is_reported_on(start_service, callers, as_caller):
    """The usual order: an agent asks about an action in a new world, and then its outcome is reported."""
    callers.add("few", "reporter", extra="limits: {worlds: 1}").add("agent", "agent").add("viewer", "viewer")
    service = start_service(callers=callers.write())
    agent, viewer, few = (as_caller(service, name) for name in ("agent", "viewer", "few"))
    for world in ("1", "2"):
        agent.check(policy="coin", world=world, context={}, action=LOW)
    until(lambda: service.metric("guardrail_decisions_written_total") == 2)
    tell(few, "1")
    with pytest.raises(LimitExceeded) as caught:
        tell(few, "2")
    assert caught.value.reason == "WORLD_QUOTA"
    assert [w.world for w in viewer.worlds()] == ["1"]


def test_a_quota_holds_against_many_at_once(start_service, callers):
    """Reports that are cut off go on to be written, and are counted all the same."""
    callers.add("few", "reporter", extra="limits: {worlds: 3}").add("viewer", "viewer")
    service = start_service(callers=callers.write())
    path, key = f"/{contract.SERVICE}/ReportOutcome", bearer(callers.keys["few"])
    with grpc.insecure_channel(f"127.0.0.1:{service.port}") as channel:
        call = channel.unary_unary(path)
        sent = [call.future(request_for("ReportOutcome", f"w{n}"), metadata=(key,), timeout=30) for n in range(40)]
        for one in sent[::2]:
            one.cancel()
        for one in sent[1::2]:
            one.exception()
        # A caller's new worlds are made one after the other, so this one comes last.
        last = call.future(request_for("ReportOutcome", "last"), metadata=(key,), timeout=30)
        assert reason_of(last.exception()) == "WORLD_QUOTA"
    with service.client(token=callers.keys["viewer"]) as client:
        assert len(list(client.worlds())) == 3


# ---------------------------------------------------------------- who reports


BOTH = "{roles: [agent, reporter], policies: [coin], worlds: ['left/*']}"


@pytest.mark.parametrize(
    "grants",
    [
        [BOTH],
        ["{roles: [agent], policies: ['*'], worlds: ['*']}", "{roles: [reporter], policies: [coin], worlds: ['*']}"],
        ["{roles: [agent], policies: ['c*'], worlds: ['*/1']}", "{roles: [reporter], policies: ['*'], worlds: ['*']}"],
    ],
)
def test_an_agent_may_not_report_where_it_acts(start_service, callers, as_caller, policy_folder, grants):
    callers.add("both", *grants).add("boss", "operator")
    service = start_service(callers=callers.write())
    client = as_caller(service, "both")
    told = {"policy": "coin", "world": "left/1", "context": {}, "action": LOW, "outcome": False}
    with pytest.raises(PermissionDenied) as caught:
        client.report(**told)
    assert caught.value.reason == "SELF_REPORT"
    with pytest.raises(PermissionDenied):
        client.report_many(policy="coin", world="left/1", reports=[guardrail.Report({}, LOW, False, "a")])
    boss = as_caller(service, "boss")
    assert list(boss.worlds()) == []
    path = policy_folder / "coin" / "policy.yaml"
    path.write_text(path.read_text() + "reporting: {self_report: true}\n")
    boss.reload_policies(timeout=60)
    client.report(**told)
    assert [w.world for w in boss.worlds()] == ["left/1"]
    guarantee = client.check(policy="coin", world="left/1", context={}, action=LOW).guarantee
    assert any("reported by the agent itself" in assumption for assumption in guarantee.assumptions)
    assert guarantee == boss.world("coin", "left/1").guarantee


def test_an_agent_may_report_where_it_does_not_act(start_service, callers, as_caller):
    callers.add(
        "both",
        "{roles: [agent], policies: ['*'], worlds: ['left/*']}",
        "{roles: [reporter], policies: ['*'], worlds: ['*']}",
    )
    client = as_caller(start_service(callers=callers.write()), "both")
    client.report(policy="coin", world="right/1", context={}, action=LOW, outcome=False)
    with pytest.raises(PermissionDenied):
        client.report(policy="coin", world="left/1", context={}, action=LOW, outcome=False)


# ---------------------------------------------------------------- tokens and reloads


def test_tokens(start_service, callers, issuer, tmp_path):
    callers.head = JWT
    callers.add("fleet", "agent, viewer", key=False, extra="jwt: {azp: fleet}")
    service = start_service(callers=callers.write())
    made = []
    with service.client(token=lambda: made[-1]) as client:
        made.append(issuer.token(sub="unit-7", azp="fleet"))
        verdict = client.check(policy="coin", world="w", context={}, action=LOW)
        assert client.decision(verdict.decision_id).caller == "fleet/unit-7"
        made.append(issuer.token(sub="unit-7", azp="fleet", exp=int(time.time()) - 60))
        with pytest.raises(Unauthenticated) as caught:
            client.policies()
        assert caught.value.reason == "CREDENTIALS_EXPIRED"
        made.append(issuer.token(sub="unit-7", azp="fleet", padding="x" * 9_000))
        with pytest.raises((Unauthenticated, ServiceError)):  # or gRPC's own limit on headers
            client.policies()


def test_callers_that_are_wrong_change_nothing_and_those_that_are_right_come_into_use_whatever_the_policies_are(
    start_service, callers, as_caller, policy_folder
):
    callers.add("boss", "operator").add("agent", "agent")
    service = start_service(callers=callers.write())
    boss, agent = as_caller(service, "boss"), as_caller(service, "agent")
    before = callers.path.read_text()
    callers.path.write_text(before.replace("roles: [agent]", "roles: [angel]"))
    with pytest.raises(ServiceError) as caught:
        boss.reload_policies(timeout=60)
    assert caught.value.reason == "SECURITY_INVALID"
    assert f"{callers.path}:10:" in str(caught.value)
    assert "did you mean" in str(caught.value)
    agent.check(policy="coin", world="w", context={}, action=LOW)
    # Whoever was taken out is kept out, whatever is wrong elsewhere.
    callers.remove("agent").write()
    (policy_folder / "coin" / "policy.yaml").write_text("no policy")
    with pytest.raises(ServiceError) as caught:
        boss.reload_policies(timeout=60)
    assert caught.value.reason == "POLICY_INVALID"
    with pytest.raises(NoVerdict) as caught:
        agent.check(policy="coin", world="w", context={}, action=LOW)
    assert caught.value.reason == "CREDENTIALS_INVALID"


def test_only_an_operator_of_everything_reloads(start_service, callers, as_caller):
    callers.add("narrow", "{roles: [operator], policies: [coin], worlds: ['*']}").add("boss", "operator")
    service = start_service(callers=callers.write())
    with pytest.raises(PermissionDenied):
        as_caller(service, "narrow").reload_policies(timeout=60)
    as_caller(service, "boss").reload_policies(timeout=60)


def test_a_key_is_replaced_without_a_gap(start_service, callers):
    from guardrail.server.security.keys import hash_line, new_key

    old, new = new_key(), new_key()
    both = f"keys: ['{hash_line(old)}', '{hash_line(new)}']"
    service = start_service(callers=callers.add("boss", "operator").add("a", "viewer", key=False, extra=both).write())
    for key in (old, new):
        with service.client(token=key) as client:
            assert client.policies()
    callers.add("a", "viewer", key=False, extra=f"keys: ['{hash_line(new)}']").write()
    with service.client(token=callers.keys["boss"]) as client:
        client.reload_policies(timeout=60)
    with service.client(token=old) as client, pytest.raises(Unauthenticated):
        client.policies()
    with service.client(token=new) as client:
        assert client.policies()
