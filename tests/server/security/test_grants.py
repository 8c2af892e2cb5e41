"""Who may do what, from the table alone."""

import pytest

from guardrail.errors import PermissionDenied
from guardrail.server import contract
from guardrail.server.security.grants import ANYONE, RULES, Caller, Grant, Role, Scope

METHODS = sorted(method.name for method in contract.POOL.FindServiceByName(contract.SERVICE).methods)

# Written out once more, so that no change of the table goes unseen.
MAY = {
    "agent": {"CheckAction", "CheckActions", "GetSession", "ListPolicies", "GetPolicy"},
    "reporter": {"ReportOutcome", "ReportOutcomes", "ReportNotTaken", "ListPolicies", "GetPolicy"},
    "approver": {
        "ListEscalations",
        "ResolveEscalation",
        "GetSession",
        "GetDecision",
        "ListDecisions",
        "WatchDecisions",
        "ListPolicies",
        "GetPolicy",
    },
    "viewer": {
        "GetWorld",
        "ListWorlds",
        "GetSession",
        "ListEscalations",
        "GetDecision",
        "ListDecisions",
        "WatchDecisions",
        "ListPolicies",
        "GetPolicy",
        "ValidatePolicy",
    },
}
MAY["operator"] = MAY["viewer"] | {"ReloadPolicies", "ResetWorld"}


def caller(*grants):
    return Caller("somebody", grants)


def grant(*roles, policies=("*",), worlds=("*",)):
    return Grant(frozenset(map(Role, roles)), policies, worlds)


def test_every_method_of_the_contract_has_a_rule():
    assert set(METHODS) <= RULES.keys()


@pytest.mark.parametrize("role", MAY)
@pytest.mark.parametrize("rpc", [*METHODS, "NotInTheTable"])
def test_roles_and_rpcs(role, rpc):
    somebody = caller(grant(role))
    allowed = rpc in MAY[role]
    assert somebody.may(rpc, "p", "w") is allowed
    if allowed:
        somebody.require_role(rpc)
        somebody.require(rpc, "p", "w")
        return
    for refuse in (lambda: somebody.require_role(rpc), lambda: somebody.require(rpc, "p", "w")):
        with pytest.raises(PermissionDenied) as caught:
            refuse()
        assert caught.value.reason == "PERMISSION_DENIED"


@pytest.mark.parametrize("rpc", [m for m in METHODS if RULES[m].scope is Scope.WORLD])
def test_a_grant_reaches_its_policies_and_worlds_only(rpc):
    somebody = caller(grant(*Role, policies=("refunds*", "x"), worlds=("prod/*", "?-1")))
    for policy, world in (("refunds", "prod/a"), ("refunds-2", "prod/a/b"), ("x", "a-1")):
        assert somebody.may(rpc, policy, world)
    for policy, world in (
        ("refund", "prod/a"),
        ("refunds", "prod"),
        ("refunds", "xprod/a"),
        ("Refunds", "prod/a"),
        ("refunds", "PROD/a"),
        ("", ""),
        ("x", "ab-1"),
        ("y", "a-1"),
        ("x\n", "a-1"),
        ("x", "a-1\n"),
    ):
        assert not somebody.may(rpc, policy, world)


def test_grants_do_not_mix():
    """The role of one grant does not reach where another one does."""
    somebody = caller(grant("agent", worlds=("a",)), grant("reporter", worlds=("b",)))
    assert somebody.may("CheckAction", "p", "a")
    assert somebody.may("ReportOutcome", "p", "b")
    assert not somebody.may("CheckAction", "p", "b")
    assert not somebody.may("ReportOutcome", "p", "a")


def test_a_policy_and_a_world_come_from_one_grant():
    somebody = caller(grant("agent", policies=("p",), worlds=("a",)), grant("agent", policies=("q",), worlds=("b",)))
    assert not somebody.may("CheckAction", "p", "b")


def test_reloading_takes_everything():
    assert caller(grant("operator")).may("ReloadPolicies")
    for narrow in (
        grant("operator", policies=("a*",)),
        grant("operator", worlds=("a*",)),
        grant("operator", policies=("?*",)),
        grant("viewer"),
    ):
        assert not caller(narrow).may("ReloadPolicies")
    assert not caller(grant("operator", policies=("a",)), grant("viewer")).may("ReloadPolicies")


def test_what_is_seen_in_answers():
    somebody = caller(grant("viewer", policies=("a",), worlds=("1",)), grant("agent", policies=("b",)))
    assert somebody.sees("ListWorlds", "a", "1")
    assert not somebody.sees("ListWorlds", "a", "2")
    assert not somebody.sees("ListWorlds", "b", "1")
    assert somebody.sees("ListPolicies", "b")
    assert not somebody.sees("ListPolicies", "c")
    assert not somebody.sees("NotInTheTable", "a", "1")


def test_anyone_may_do_what_has_a_rule():
    for rpc in METHODS:
        assert ANYONE.may(rpc, "p", "w")
        assert ANYONE.sees(rpc, "p", "w")
    assert not ANYONE.may("NotInTheTable", "p", "w")
    assert ANYONE.name == ""
