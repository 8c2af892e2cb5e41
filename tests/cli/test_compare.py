import json
import re
import sqlite3
import time

import pytest

from guardrail import Guard
from guardrail.canonical import canonical_json, digest
from guardrail.policy import load_policy
from guardrail.store import open_store
from guardrail.store.base import NewObservation
from guardrail.store.decisions import LoggedDecision

ASKED = [({}, {"kind": "low"}), ({}, {"kind": "high"}), ({"level": 1.0}, {"kind": "low", "size": 20.0})]
STEPS = 8
TOTAL = STEPS * len(ASKED)


@pytest.fixture(scope="module")
def database(policy_file, tmp_path_factory):
    path = tmp_path_factory.mktemp("log") / "log.db"
    store, guard = open_store(path), Guard(load_policy(policy_file), world="w")
    store.record_policy(guard.policy.name, guard.policy.revision, guard.policy.document)
    for step in range(STEPS):
        for context, action in ASKED:
            record = LoggedDecision(guard.check(context, action), context, action, float(step)).to_record()
            store.append_decisions([record])
        guard.observe({}, {"kind": "high"}, False)
        content = canonical_json({"action": {"kind": "high"}, "context": {}, "outcome": False})
        store.append_observations([NewObservation("coin", "w", str(step), digest(content), content)])
    store.close()
    return path


@pytest.fixture
def candidate(policy_file, tmp_path):
    """Write an edited copy of the policy; its path."""

    def write(*edits):
        text = policy_file.read_text()
        for old, new in edits:
            assert old in text
            text = text.replace(old, new)
        path = tmp_path / "candidate.yaml"
        path.write_text(text)
        return path

    return write


LOOSER = ("reject_above: 0.2, escalate_above: 0.06", "reject_above: 0.6")
STRICTER = ("reject_above: 0.2, escalate_above: 0.06", "reject_above: 0.001")


def lines(result):
    return [json.loads(line) for line in result.out.splitlines()]


def test_what_is_loosened_comes_first_and_in_full(cli, database, candidate):
    result = cli("policy", "compare", "logged", candidate(LOOSER), "--log", database)
    assert result.code == 1
    first = result.out.splitlines()[:4]
    assert re.fullmatch(r"LOOSENED  reject -> accept  [0-9a-f]{32}  world w, \d+ observations", first[0])
    assert first[1] == '  context {}  action {"kind": "high"}'
    assert re.fullmatch(
        r"  old: reject, bound (0\.\d+) \(reject above 0\.2, escalate above 0\.06\); "
        r"HARM_BOUND_ABOVE_REJECT: the harm bound \1 exceeds 0\.2",
        first[2],
    )
    assert first[3].startswith("  new: accept, bound 0.")
    *_, summary, caveat = result.out.splitlines()
    assert re.fullmatch(rf"{TOTAL} decisions, \d+ loosened, none in doubt", summary)
    assert "starts a new one, which holds only if its class, prior, delta" in caveat


def test_nothing_loosened_and_nothing_in_doubt_is_a_yes(cli, database, policy_file, candidate):
    for old in ("logged", policy_file):
        result = cli("policy", "compare", old, candidate(STRICTER), "--log", database)
        assert result.code == 0
        assert "->" not in result.out
        assert f"{TOTAL} decisions, none loosened, none in doubt" in result.out
    result = cli("policy", "compare", "logged", candidate(STRICTER), "--log", database, "--all")
    assert result.code == 0
    assert "accept -> reject" in result.out


def test_lines_for_programs(cli, database, policy_file, candidate):
    result = cli("policy", "compare", policy_file, candidate(LOOSER), "--log", database, "--json")
    *flips, summary = lines(result)
    assert result.code == 1
    assert {(flip["kind"], flip["loosens"]) for flip in flips} == {("flip", True)}
    assert list(flips[0])[:4] == ["kind", "loosens", "decision_id", "world"]
    assert list(flips[0])[4:] == ["policy_revision", "posterior_revision", "context", "action", "old", "new"]
    assert flips[0]["new"]["reasons"][0]["code"] == "WITHIN_THRESHOLD"
    assert list(summary) == [
        "kind", "policy", "old_revision", "new_revision", "decisions", "from_to", "loosened", "in_doubt", "doubts",
        "decided_under_new", "caveat", "damage",
    ]  # fmt: skip
    assert (summary["decisions"], summary["loosened"], summary["in_doubt"]) == (TOTAL, len(flips), 0)
    counts = summary["from_to"]
    assert sum(sum(row.values()) for row in counts.values()) == TOTAL
    assert counts["reject"]["accept"] + counts["escalate"]["accept"] == len(flips)


def test_doubts_are_counted_and_never_agree(cli, database, candidate):
    path = candidate(STRICTER, ("level:", "height:"))
    result = cli("policy", "compare", "logged", path, "--log", database)
    assert result.code == 1
    assert f"{STEPS} in doubt, UNKNOWN_FIELD (NEW): for instance" in result.out
    assert f"none loosened, {STEPS} in doubt" in result.out
    every = cli("policy", "compare", "logged", path, "--log", database, "--all")
    assert every.out.count("IN DOUBT") == STEPS
    *_, summary = found = lines(cli("policy", "compare", "logged", path, "--log", database, "--json"))
    assert [one["code"] for one in found if one["kind"] == "doubt"] == ["UNKNOWN_FIELD"] * STEPS
    assert summary["doubts"] == [{"side": "new", "code": "UNKNOWN_FIELD", "decisions": STEPS}]
    assert sum(sum(row.values()) for row in summary["from_to"].values()) == TOTAL - STEPS


def test_the_policy_that_decided_is_noticed(cli, database, policy_file):
    result = cli("policy", "compare", "logged", policy_file, "--log", database)
    assert result.code == 0
    assert f"{TOTAL} of them were made under NEW itself" in result.out


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("SELF", "SELF"), "POLICIES_EQUAL"),
        (("SELF", "OTHER"), "OTHER_POLICY"),
        (("logged", "OTHER"), "OTHER_POLICY"),
        (("logged", "LOOSER", "--world", "nowhere"), "LOG_EMPTY"),
        (("missing.yaml", "LOOSER"), "POLICY_INVALID"),
    ],
)
def test_what_cannot_be_compared_has_no_answer(cli, database, policy_file, candidate, tmp_path, arguments, reason):
    other = tmp_path / "other.yaml"
    other.write_text(policy_file.read_text().replace("name: coin", "name: dice"))
    names = {"SELF": policy_file, "OTHER": other, "LOOSER": candidate(LOOSER)}
    result = cli("policy", "compare", *(names.get(a, a) for a in arguments), "--log", database, "--json")
    assert (result.code, result.out) == (3, "")
    assert json.loads(result.err)["error"]["reason"] == reason


def test_a_log_that_is_not_there_has_no_answer(cli, candidate, tmp_path):
    result = cli("policy", "compare", "logged", candidate(LOOSER), "--log", tmp_path / "none.db")
    assert result.code == 3
    assert "STORE_UNAVAILABLE" in result.err


def test_a_damaged_record_is_a_no(cli, database, candidate, tmp_path):
    copy = tmp_path / "copy.db"
    with sqlite3.connect(database) as source, sqlite3.connect(copy) as target:
        source.backup(target)
        target.execute("UPDATE decisions SET decision = 'accept' WHERE id = (SELECT max(id) FROM decisions)")
    source.close()
    target.close()
    result = cli("policy", "compare", "logged", candidate(STRICTER), "--log", copy, "--json")
    assert result.code == 1
    assert lines(result)[-1]["damage"]["reason"] == "STORE_CORRUPT"
    assert json.loads(result.err)["error"]["reason"] == "STORE_CORRUPT"


def test_a_picture(cli, database, candidate, tmp_path):
    file = tmp_path / "bounds.png"
    assert cli("policy", "compare", "logged", candidate(LOOSER), "--log", database, "--plot", file).code == 1
    assert file.read_bytes().startswith(b"\x89PNG")
    nowhere = tmp_path / "no" / "bounds.png"
    result = cli("policy", "compare", "logged", candidate(LOOSER), "--log", database, "--plot", nowhere)
    assert result.code == 2
    assert "cannot be written" in result.err
    assert "LOOSENED" in result.out, "the work is not lost"


def test_the_log_of_a_running_service(cli, service, candidate):
    asked = ["--policy", "coin", "--world", "compared", "--target", service.target]
    decision_ids = []
    for step in range(3):
        answer = cli("check", *asked, "--action", '{"kind": "high"}', "--json")
        decision_ids.append(answer.json["decision_id"])
        reported = cli("report", *asked, "--action", '{"kind": "high"}', "--outcome", "false", "--observation-id", step)
        assert reported.code == 0
    again = ["--log", service.store, "--world", "compared", "--json"]
    path = candidate(("reject_above: 0.2, escalate_above: 0.06", "reject_above: 0.95"))
    found, deadline = [], time.monotonic() + 60
    # Decisions are written a moment after they are answered.
    while not (found and found[-1]["decisions"] == 3) and time.monotonic() < deadline:
        found = lines(cli("policy", "compare", "logged", path, *again))
    *flips, summary = found
    assert [flip["decision_id"] for flip in flips] == decision_ids
    assert [flip["old"]["decision"] for flip in flips] == ["reject"] * 3
    assert summary["from_to"]["reject"]["accept"] == 3
