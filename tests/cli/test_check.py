import json

import pytest

LOW, HIGH = '{"kind": "low"}', '{"kind": "high"}'

VERDICT_KEYS = [
    "decision",
    "harm_bound",
    "threshold",
    "escalate_above",
    "predictive_harm",
    "cautious_hypothesis",
    "guarantee",
    "reasons",
    "policy",
    "policy_revision",
    "world",
    "posterior_revision",
    "decision_id",
    "search",
    "notices",
    "budget",
    "approval",
    "escalation_expires",
    "shadow",
    "enforced_decision",
]


def in_process(cli, policy_file, *arguments, **options):
    return cli("check", "--policy-file", policy_file, *arguments, **options)


# ---------------------------------------------------------------- in process


def test_an_accepted_action_exits_with_0(cli, policy_file):
    result = in_process(cli, policy_file, "--action", LOW, "--json")
    assert result.code == 0
    assert result.json["decision"] == "accept"
    # Before any observation every hypothesis is plausible, the wild coin most cautious.
    assert result.json["harm_bound"] == pytest.approx(0.04)
    assert result.json["predictive_harm"] == pytest.approx(0.5 * 0.02 + 0.3 * 0.01 + 0.2 * 0.04)
    assert result.err == ""


@pytest.mark.parametrize(
    ("action", "decision", "code"),
    [
        (HIGH, "reject", "HARM_BOUND_ABOVE_REJECT"),
        ('{"kind": "low", "size": 20}', "reject", "RULE_MATCHED"),
        ('{"kind": "low", "size": 7}', "escalate", "RULE_MATCHED"),
        ('{"kind": "low", "size": NaN}', "reject", "NOT_FINITE"),
        ('{"kind": "low", "size": "large"}', "reject", "WRONG_TYPE"),
        ('{"kind": "low", "colour": "red"}', "reject", "UNKNOWN_FIELD"),
        ('{"kind": "edge"}', "reject", "UNKNOWN_CATEGORY"),
        ("{}", "reject", "FEATURE_MISSING"),
    ],
)
def test_whatever_is_not_accepted_exits_with_1(cli, policy_file, action, decision, code):
    result = in_process(cli, policy_file, "--action", action, "--json")
    assert result.code == 1
    assert (result.json["decision"], result.json["reasons"][0]["code"]) == (decision, code)


def test_the_json_keys_are_stable(cli, policy_file):
    verdict = in_process(cli, policy_file, "--action", HIGH, "--json").json
    assert list(verdict) == VERDICT_KEYS
    assert list(verdict["cautious_hypothesis"]) == ["name", "parameters", "harm", "log_posterior"]
    assert verdict["search"] == {"truncated": False, "scanned": 1.0}
    assert list(verdict["guarantee"]) == ["kind", "confidence", "assumptions", "source"]
    assert [list(r) for r in verdict["reasons"]] == [["code", "message"]]


def test_the_text_says_everything_that_matters(cli, policy_file):
    text = in_process(cli, policy_file, "--action", HIGH).out
    for part in (
        "REJECT",
        "HARM_BOUND_ABOVE_REJECT",
        "0.9 (reject above 0.2, escalate above 0.06)",
        "(without guarantee)",
        "wild",
        "theorem: holds at all times at once",
        "0.95",
        "the truth is a member of the hypothesis class",
        "Waudby-Smith and Ramdas 2020",
        "decision id",
    ):
        assert part in text


def test_several_candidates(cli, policy_file):
    actions = f'[{HIGH}, {LOW}, {{"kind": "low", "size": 7}}]'
    result = in_process(cli, policy_file, "--actions", actions, "--json")
    assert result.code == 1
    assert list(result.json) == ["verdicts", "allowed"]
    assert [v["decision"] for v in result.json["verdicts"]] == ["reject", "accept", "escalate"]
    assert result.json["allowed"] == [1]
    assert in_process(cli, policy_file, "--actions", f"[{LOW}, {LOW}]").code == 0
    text = in_process(cli, policy_file, "--actions", f"[{HIGH}]")
    assert text.code == 1
    assert "allowed, smallest harm bound first: none" in text.out


def test_json_is_read_from_files_and_standard_input(cli, policy_file, tmp_path):
    file = tmp_path / "action.json"
    file.write_text(LOW)
    assert in_process(cli, policy_file, "--action", f"@{file}").code == 0
    assert in_process(cli, policy_file, "--action", "@-", input=LOW).code == 0


@pytest.mark.parametrize(
    "arguments",
    [
        ["--action", "not json"],
        ["--action", "[1]"],
        ["--action", "@/nowhere/action.json"],
        ["--action", "[" * 100_000],
        ["--action", LOW, "--actions", f"[{LOW}]"],
        ["--actions", "[]"],
        ["--actions", "[1]"],
        ["--actions", LOW],
        ["--context", "1", "--action", LOW],
        ["--policy", "coin", "--action", LOW],
        ["--no-such-option"],
        ["--deadline", "0"],
    ],
)
def test_a_wrong_command_line_exits_with_2(cli, policy_file, arguments):
    result = in_process(cli, policy_file, *arguments)
    assert result.code == 2
    assert result.out == ""
    assert "Error" in result.err


def test_without_a_policy_or_a_world_there_is_nothing_to_ask(cli):
    assert cli("check", "--action", LOW).code == 2
    assert cli("check", "--policy", "coin", "--action", LOW).code == 2
    assert cli("check", "--world", "w", "--action", LOW).code == 2


def test_a_policy_that_is_wrong_gives_no_verdict(cli, tmp_path):
    file = tmp_path / "policy.yaml"
    file.write_text("schema: guardrail/v1\nname: Bad Name\n")
    result = cli("check", "--policy-file", file, "--action", LOW, "--json")
    assert (result.code, result.out) == (3, "")
    error = json.loads(result.err)["error"]
    assert error["reason"] == "POLICY_INVALID"
    assert {"path", "line", "column", "message"} == set(error["problems"][0])
    assert "Traceback" not in cli("check", "--policy-file", file, "--action", LOW).err


# ---------------------------------------------------------------- against a service


def test_the_service_answers_as_the_guard_in_process(cli, service, policy_file):
    asked = ["--action", HIGH, "--world", "fresh", "--json"]
    remote = cli("check", "--policy", "coin", "--target", service.target, *asked)
    local = in_process(cli, policy_file, *asked)
    assert remote.code == local.code == 1
    assert {**remote.json, "decision_id": ""} == {**local.json, "decision_id": ""}


def test_candidates_against_a_service(cli, service):
    result = cli(
        "check",
        "--policy",
        "coin",
        "--world",
        "w",
        "--actions",
        f"[{LOW}, {HIGH}]",
        "--target",
        service.target,
        "--json",
    )
    assert (result.code, result.json["allowed"]) == (1, [0])


def test_the_target_may_come_from_the_environment(cli, service, monkeypatch):
    monkeypatch.setenv("GUARDRAIL_TARGET", service.target)
    assert cli("check", "--policy", "coin", "--world", "w", "--action", LOW).code == 0


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--policy", "nobody", "--world", "w"], "POLICY_NOT_FOUND"),
        (["--policy", "coin", "--world", "w" * 100_000], "INVALID_REQUEST"),
        (["--policy", "coin", "--world", ""], "INVALID_REQUEST"),
    ],
)
def test_without_a_verdict_it_exits_with_3(cli, service, arguments, reason):
    result = cli("check", *arguments, "--action", LOW, "--target", service.target)
    assert (result.code, result.out) == (3, "")
    assert result.err.startswith(f"error [{reason}]: ")
    assert "Traceback" not in result.err


def test_without_a_service_it_exits_with_3(cli):
    nobody = ["--target", "127.0.0.1:9", "--deadline", "0.5"]
    result = cli("check", "--policy", "coin", "--world", "w", "--action", LOW, "--json", *nobody)
    assert (result.code, result.out) == (3, "")
    assert json.loads(result.err)["error"]["reason"] in ("UNREACHABLE", "DEADLINE_EXCEEDED")


def test_observations_may_be_insisted_on(cli, service):
    ask = (
        "check",
        "--policy",
        "coin",
        "--world",
        "insisted",
        "--action",
        '{"kind": "high"}',
        "--target",
        service.target,
    )
    told = ("report", "--policy", "coin", "--world", "insisted", "--action", '{"kind": "high"}', "--outcome", "false")
    revision = cli(*told, "--target", service.target, "--json").json["posterior_revision"]
    assert cli(*ask, "--min-revision", revision, "--json").json["posterior_revision"] == revision
    result = cli(*ask, "--min-revision", revision + 1)
    assert result.code == 3
    assert "error [REVISION_NOT_REACHED]: the log of world 'insisted' holds 1 observations" in result.err
