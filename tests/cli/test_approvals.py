"""`guardrail approvals`, and `guardrail check --approval`."""

import pytest

LARGE = '{"kind": "low", "size": 6}'


@pytest.fixture
def ask(cli, service):
    """`guardrail check` of an action that is escalated, in a world of the test's own."""

    def ask(world, *more, action=LARGE):
        where = ("--policy", "coin", "--world", world, "--target", service.target)
        return cli("check", *where, "--action", action, *more, "--json")

    return ask


@pytest.fixture
def approvals(cli, service):
    def approvals(*arguments, **options):
        return cli("approvals", *arguments, "--target", service.target, **options)

    return approvals


def test_the_way_of_an_approval(ask, approvals, cli, service):
    asked = ask("approvals/a")
    one = asked.json["decision_id"]
    assert (asked.code, asked.json["decision"]) == (1, "escalate")
    assert ask("approvals/a", "--approval", one).json["reasons"][0]["code"] == "APPROVAL_PENDING"
    (listed,) = approvals("list", "--world", "approvals/a", "--json").json["escalations"]
    assert (listed["escalation_id"], listed["state"], listed["decision"]["action"]["size"]) == (one, "pending", 6.0)
    shown = approvals("show", one).out
    for part in (
        "ESCALATE",
        "RULE_MATCHED: large",
        '"size": 6.0',
        "pending",
        listed["digest"],
        "may be approved until",
    ):
        assert part in shown
    said_no = approvals("approve", one, input="n\n")
    assert said_no.code == 1
    assert ("Approve it?" in said_no.err, '"size": 6.0' in said_no.err) == (True, True)
    done = approvals("approve", one, "--note", "seen", "--json", "--yes")
    assert (done.code, done.json["state"], done.json["note"]) == (0, "approved", "seen")
    passed = ask("approvals/a", "--approval", one)
    assert (passed.code, passed.json["decision"], passed.json["approval"]["note"]) == (0, "accept", "seen")
    where = ("--policy", "coin", "--world", "approvals/a", "--target", service.target)
    text = cli("decisions", "show", passed.json["decision_id"], "--target", service.target).out
    assert "APPROVED" in text
    assert "seen" in text
    assert "APPROVAL_USED" in cli("check", *where, "--action", LARGE, "--approval", one).out
    assert approvals("list", "--world", "approvals/a", "--json").json == {"escalations": []}
    assert f"{one}  used " in approvals("list", "--world", "approvals/a", "--all").out


def test_a_denial(ask, approvals):
    one = ask("approvals/d").json["decision_id"]
    denied = approvals("deny", one, "--note", "no")
    assert denied.err == ""
    assert denied.out == f"{one} is denied\n"
    assert ask("approvals/d", "--approval", one).json["reasons"][0]["code"] == "APPROVAL_DENIED"
    again = approvals("approve", one, "--yes")
    assert (again.code, "ESCALATION_CLOSED" in again.err) == (3, True)


def test_what_cannot_be_looked_at_is_not_resolved(ask, approvals):
    accepted = ask("approvals/n", action='{"kind": "low"}').json["decision_id"]
    for name in ("0" * 32, accepted):
        for command in ("show", "approve", "deny"):
            result = approvals(command, name)
            assert (result.code, "ESCALATION_NOT_FOUND" in result.err) == (3, True)
    assert approvals("list", "--world", "approvals/n").err == "nothing waits for a person\n"


def test_an_approval_is_for_one_action_of_a_service(cli, service, policy_file):
    where = ("--policy", "coin", "--world", "w", "--target", service.target)
    assert cli("check", *where, "--actions", f"[{LARGE}, {LARGE}]", "--approval", "x").code == 2
    assert cli("check", "--policy-file", policy_file, "--action", LARGE, "--approval", "x").code == 2
