import contextlib
import json
import math
import sqlite3
from collections import Counter
from dataclasses import replace

import program_policies
import pytest

from guardrail import comparison
from guardrail.canonical import canonical_json, digest
from guardrail.comparison import compare
from guardrail.domain import Decision
from guardrail.errors import LogUnusable, StoreCorrupt
from guardrail.guard import Guard
from guardrail.oracles.build import close
from guardrail.policy import load_policy, parse_policy
from guardrail.records import verdict_from_dict
from guardrail.store import open_store
from guardrail.store.base import NewObservation
from guardrail.store.decisions import LoggedDecision

OLD = """
schema: guardrail/v1
name: coin
description: For a test.
context:
  level: {type: number, optional: true}
action:
  kind: string
hypotheses:
  family: finite-table
  category: action.kind
  table:
    - {name: fair, prior: 0.5, rates: {low: 0.05, high: 0.5}}
    - {name: mild, prior: 0.3, rates: {low: 0.01, high: 0.1}}
    - {name: wild, prior: 0.2, rates: {low: 0.3, high: 0.9}}
outcome: {name: hurt, type: bool}
harm: outcome.hurt
bound: {kind: ratio, delta: 0.05, running: true}
decision: {reject_above: 0.2, escalate_above: 0.06}
rules:
  - {when: 'has(context.level) && context.level > 1.0', decide: reject, reason: too high}
"""
ASKED = [({}, {"kind": "low"}), ({}, {"kind": "high"}), ({"level": 2.0}, {"kind": "low"}), ({}, {"kind": 1.0})]


def edited(*edits):
    text = OLD
    for old, new in edits:
        assert old in text
        text = text.replace(old, new)
    return parse_policy(text)


POLICY = parse_policy(OLD)
LOOSER = edited(("reject_above: 0.2, escalate_above: 0.06", "reject_above: 0.4"))
STRICTER = edited(("reject_above: 0.2, escalate_above: 0.06", "reject_above: 0.02"))


@pytest.fixture
def store(tmp_path):
    """Two worlds, harmless outcomes; four questions before each outcome."""
    store = open_store(tmp_path / "log.db")
    store.record_policy(POLICY.name, POLICY.revision, POLICY.document)
    prior = Guard(POLICY)
    for world in ("one", "two"):
        guard = prior.fork(world=world)
        for step in range(12):
            for place, (context, action) in enumerate(ASKED):
                verdict = guard.check(context, action)
                store.append_decisions([LoggedDecision(verdict, context, action, step + place / 10).to_record()])
            action = {"kind": "high"}
            guard.observe({}, action, False)
            content = canonical_json({"action": action, "context": {}, "outcome": False})
            store.append_observations([NewObservation("coin", world, str(step), digest(content), content)])
    yield store
    store.close()


class Altered:
    """A store some of whose records are others, checksums and all."""

    def __init__(self, store, decisions=lambda record: record, observations=lambda record: record):
        self._store, self._decisions, self._observations = store, decisions, observations

    def __getattr__(self, name):
        return getattr(self._store, name)

    def decisions(self, policy=None, world=None):
        return map(self._decisions, self._store.decisions(policy, world))

    def observations(self, policy, world, after=0, generation=None):
        return filter(None, map(self._observations, self._store.observations(policy, world, after, generation)))


def codes(found):
    return Counter((one.doubt.side, one.doubt.code) for one in found if one.doubt is not None)


@pytest.mark.parametrize("old", [None, POLICY], ids=["logged", "file"])
def test_each_decision_is_judged_by_both(store, old):
    """Against guards that are led through the same log by hand."""
    found = list(compare(store, old, LOOSER))
    assert len(found) == 2 * 12 * len(ASKED)
    assert not codes(found)
    guards = {world: [Guard(policy, world=world) for policy in (POLICY, LOOSER)] for world in ("one", "two")}
    for one in found:
        for guard, verdict in zip(guards[one.record.world], (one.old, one.new), strict=True):
            while guard.revision < one.record.posterior_revision:
                guard.observe({}, {"kind": "high"}, False)
            expected = guard.check(one.context, one.action)
            assert (verdict.decision, verdict.reasons) == (expected.decision, expected.reasons)
            assert verdict.harm_bound == pytest.approx(expected.harm_bound, abs=1e-12)
    flips = Counter((one.old.decision, one.new.decision) for one in found if one.flips)
    assert flips[Decision.REJECT, Decision.ACCEPT] > 0
    assert flips[Decision.ESCALATE, Decision.ACCEPT] > 0
    assert all(one.loosens for one in found if one.flips)
    rules = [one for one in found if one.context]
    assert {one.new.reasons[0].code for one in rules} == {"RULE_MATCHED"}
    assert not any(one.flips for one in rules)


def test_the_question_that_both_refuse_for_the_same_reason_is_agreement(store):
    found = [one for one in compare(store, None, LOOSER) if one.action == {"kind": 1.0}]
    assert {one.new.reasons[0].code for one in found} == {"WRONG_TYPE"}
    assert not any(one.flips or one.doubt for one in found)


def write(store, policy, verdicts, action):
    store.record_policy(policy.name, policy.revision, policy.document)
    for step, verdict in enumerate(verdicts):
        store.append_decisions([LoggedDecision(verdict, {}, action, float(step)).to_record()])


def test_what_was_only_watched_is_compared_by_what_it_would_have_been(tmp_path):
    watching = parse_policy(OLD + "mode: shadow\n")
    guard = Guard(watching, world="one")
    with contextlib.closing(open_store(tmp_path / "watched.db")) as store:
        write(store, watching, [guard.check({}, {"kind": kind}) for kind in ("high", "low")], {"kind": "high"})
        for old in (None, watching):
            first, _ = compare(store, old, LOOSER)
            assert first.doubt is None
            assert (first.old.found, first.new.found, first.loosens) == (Decision.REJECT, Decision.REJECT, False)
        looser = edited(("reject_above: 0.2, escalate_above: 0.06", "reject_above: 0.95"))
        assert next(compare(store, None, looser)).loosens


BUDGET = "reject_above: 0.95, budget: {per: window, window: 1h, total: 0.95}"


@pytest.mark.parametrize(
    "decision",
    [
        "reject_above: 0.95",
        BUDGET.replace("total: 0.95", "total: 1.0"),
        BUDGET.replace("1h", "1m"),
        "reject_above: 0.95, budget: {per: session, total: 0.95}",
    ],
)
def test_whether_another_budget_would_have_refused_is_in_doubt(tmp_path, decision):
    limited = edited(("reject_above: 0.2, escalate_above: 0.06", BUDGET))
    other = edited(("reject_above: 0.2, escalate_above: 0.06", decision))
    same = edited(("reject_above: 0.2, escalate_above: 0.06", BUDGET.replace("0.95,", "0.94,")))
    stricter = edited(("reject_above: 0.2, escalate_above: 0.06", "reject_above: 0.2"))
    guard = Guard(limited, world="one")
    with contextlib.closing(open_store(tmp_path / "limited.db")) as store:
        write(store, limited, [guard.check({}, {"kind": "high"}) for _ in range(2)], {"kind": "high"})
        for old in (None, limited):
            assert codes(compare(store, old, other)) == {("new", "BUDGET_EXHAUSTED"): 1}
            assert not codes(compare(store, old, same))
            assert not codes(compare(store, old, stricter))


def test_a_stricter_policy_loosens_nothing(store):
    found = list(compare(store, None, STRICTER, world="one"))
    assert {one.record.world for one in found} == {"one"}
    assert any(one.flips for one in found)
    assert not any(one.loosens for one in found)


def test_another_class_is_folded_over_the_same_observations(store):
    """A prior under which the coin is mild needs fewer observations to accept."""
    candidate = edited(("prior: 0.5", "prior: 0.01"), ("prior: 0.3", "prior: 0.98"), ("prior: 0.2", "prior: 0.01"))
    found = [one for one in compare(store, None, candidate, world="one") if one.action == {"kind": "high"}]
    guard = Guard(candidate)
    for one in found:
        while guard.revision < one.record.posterior_revision:
            guard.observe({}, {"kind": "high"}, False)
        assert one.new.harm_bound == pytest.approx(guard.check({}, one.action).harm_bound, abs=1e-12)


def test_a_field_that_the_candidate_does_not_know_is_a_doubt(store):
    candidate = parse_policy(OLD.replace("level", "height"))
    found = list(compare(store, None, candidate))
    assert codes(found) == {("new", "UNKNOWN_FIELD"): 2 * 12}
    assert {tuple(one.context) for one in found if one.doubt} == {("level",)}
    # The other way round the fault is the old policy's, and what is loosened is listed all the same.
    lenient = parse_policy(OLD.replace("context.level > 1.0", "context.level > 3.0"))
    found = list(compare(store, candidate, lenient))
    assert codes(found).keys() == {("old", "UNKNOWN_FIELD")}
    assert any(one.loosens and one.context for one in found)


def test_an_observation_that_does_not_fit_the_candidate_is_a_doubt_from_there_on(store):
    candidate = parse_policy(OLD.replace("high: ", "other: "))
    found = list(compare(store, None, candidate))
    fits = [one for one in found if one.record.posterior_revision == 0]
    assert codes(one for one in found if one not in fits) == {("new", "WORLD_UNAVAILABLE"): 2 * 11 * len(ASKED)}
    later = next(one for one in found if one.record.posterior_revision == 5)
    assert "observation 1 (0) does not fit" in later.doubt.message
    assert codes(fits) == {("new", "UNKNOWN_CATEGORY"): 2}


def test_a_log_with_too_few_observations_is_a_doubt(store):
    cut = Altered(store, observations=lambda record: record if record.sequence <= 4 else None)
    assert codes(compare(cut, None, LOOSER)) == {("new", "WORLD_UNAVAILABLE"): 2 * 7 * len(ASKED)}


def verdict_edit(**changes):
    def edit(record):
        return replace(record, verdict=json.dumps({**json.loads(record.verdict), **changes}))

    return edit


@pytest.mark.parametrize(
    ("edit", "code"),
    [
        (lambda record: replace(record, verdict="{}"), "RECORD_UNREADABLE"),
        (lambda record: replace(record, request='{"action": []}'), "RECORD_UNREADABLE"),
        (verdict_edit(decision="accept"), "RECORD_CONTRADICTS"),
        (verdict_edit(posterior_revision=99), "RECORD_CONTRADICTS"),
        (verdict_edit(reasons=[{"code": "STALE_POSTERIOR", "message": ""}]), "STALE_POSTERIOR"),
    ],
)
@pytest.mark.parametrize("old", [None, POLICY], ids=["logged", "file"])
def test_a_record_that_says_nothing_sure_is_a_doubt(store, edit, code, old):
    victim = next(r for r in store.decisions() if r.decision == "reject" and r.posterior_revision == 3)
    altered = Altered(store, lambda record: edit(record) if record.decision_id == victim.decision_id else record)
    found = list(compare(altered, old, LOOSER))
    assert codes(found) == {("log", code): 1}
    assert len(found) == 2 * 12 * len(ASKED)


FAILED = {"reasons": [{"code": "MODEL_FAILED", "message": "hung"}], "decision": "reject", "harm_bound": 1.0}


def failed(record):
    above = "HARM_BOUND_ABOVE_REJECT" in record.verdict
    return verdict_edit(**FAILED)(record) if above else record


def test_a_rejection_for_want_of_a_bound_is_a_doubt(store):
    assert set(codes(compare(Altered(store, failed), None, STRICTER))) == {("old", "MODEL_FAILED")}
    # An accept after it is listed as what it is.
    found = list(compare(Altered(store, failed), None, LOOSER))
    assert any(one.loosens and one.old.reasons[0].code == "MODEL_FAILED" for one in found)


def test_two_failures_are_no_agreement(store, monkeypatch):
    """A policy that finds no bound this time may find one the next."""

    def hung(judge, state, entries, **options):
        return [verdict_from_dict({**entry.verdict, **FAILED}) for entry in entries]

    monkeypatch.setattr(comparison, "judged", hung)
    found = list(compare(store, POLICY, LOOSER))
    assert codes(found) == {("new", "MODEL_FAILED"): len(found)}


def test_a_number_that_is_none_accepts_nothing(store):
    altered = Altered(store, decisions=verdict_edit(harm_bound=math.nan, predictive_harm=None))
    assert not codes(compare(altered, None, LOOSER))


def test_a_damaged_record_stops_the_comparison(store, tmp_path):
    connection = sqlite3.connect(tmp_path / "log.db")
    connection.execute("UPDATE decisions SET decision = 'accept' WHERE id = (SELECT max(id) FROM decisions)")
    connection.commit()
    connection.close()
    compared = compare(store, None, LOOSER)
    assert next(compared).doubt is None
    with pytest.raises(StoreCorrupt):
        list(compared)


def test_it_reads_no_more_than_it_has_been_asked_for(store):
    read = []

    def seen(record):
        read.append(record.sequence)
        return record

    compared = compare(Altered(store, observations=seen), None, LOOSER)
    next(compared)
    assert read == []


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        (POLICY, parse_policy(OLD + "# a comment\n"), "POLICIES_EQUAL"),
        (POLICY, parse_policy(OLD.replace("name: coin", "name: dice")), "OTHER_POLICY"),
        (None, parse_policy(OLD.replace("name: coin", "name: dice")), "OTHER_POLICY"),
    ],
)
def test_what_cannot_be_compared_at_all_is_refused(store, old, new, reason):
    with pytest.raises(LogUnusable) as caught:
        compare(store, old, new)
    assert caught.value.reason == reason


def test_an_empty_log_is_refused(store, tmp_path):
    with pytest.raises(LogUnusable, match="no decision of world 'three'") as caught:
        compare(store, None, LOOSER, world="three")
    assert caught.value.reason == "LOG_EMPTY"
    empty = open_store(tmp_path / "empty.db")
    try:
        with pytest.raises(LogUnusable) as caught:
            compare(empty, None, LOOSER)
        assert caught.value.reason == "LOG_EMPTY"
    finally:
        empty.close()


def test_each_log_of_a_world_that_was_reset_is_folded_by_itself(store):
    store.reset_world("coin", "one", 1, "a new machine", "")
    guard = Guard(POLICY, world="one")
    fresh = replace(
        LoggedDecision(guard.check({}, {"kind": "high"}), {}, {"kind": "high"}, 99.0).to_record(), generation=2
    )
    store.append_decisions([fresh])
    found = list(compare(store, POLICY, LOOSER, world="one"))
    assert not codes(found)
    (after,) = [one for one in found if one.record.generation == 2]
    expected = guard.check({}, {"kind": "high"})
    assert (after.old.harm_bound, after.old.decision) == (expected.harm_bound, expected.decision)
    before = [one.old.harm_bound for one in found if one.record.generation == 1 and one.action == {"kind": "high"}]
    assert before[-1] < after.old.harm_bound == before[0]


@pytest.mark.slow
def test_programs_are_compared_from_their_files(tmp_path):
    """The store does not hold code: OLD `logged` needs none, and the candidate's runs in a process of its own."""
    old = load_policy(program_policies.write(tmp_path / "old"))
    new = load_policy(program_policies.write(tmp_path / "new", ("reject_above: 0.1", "reject_above: 0.9")))
    store, guard = open_store(tmp_path / "log.db"), Guard(old, world="w")
    try:
        store.record_policy(old.name, old.revision, old.document)
        for step in range(3):
            context = {"x": 1.0 + step}
            store.append_decisions([LoggedDecision(guard.check(context, {}), context, {}, float(step)).to_record()])
            guard.observe(context, {}, 0.2)
            content = canonical_json({"action": {}, "context": context, "outcome": {"y": 0.2}})
            store.append_observations([NewObservation(old.name, "w", str(step), digest(content), content)])
        logged, files = (list(compare(store, side, new)) for side in (None, old))
    finally:
        store.close()
        close(guard._judge.oracle)
    assert not codes(logged)
    assert any(one.loosens for one in logged)
    assert [(o.old.decision, o.new.decision) for o in logged] == [(o.old.decision, o.new.decision) for o in files]
    assert [o.old.harm_bound for o in logged] == pytest.approx([o.old.harm_bound for o in files], abs=1e-9)
