import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import program_policies
import pytest

from guardrail.calibration import evidence, residuals
from guardrail.calibration_log import CURVES_KEPT, Calibration, Course
from guardrail.canonical import canonical_json, digest
from guardrail.errors import LogUnusable
from guardrail.guard import Guard
from guardrail.oracles.build import close
from guardrail.policy import load_policy, parse_policy
from guardrail.promises import predictions
from guardrail.store import open_store
from guardrail.store.base import NewObservation
from guardrail.store.decisions import LoggedDecision

ROOT = Path(__file__).resolve().parents[1]
TEXT = """
schema: guardrail/v1
name: tools
description: For a test.
action: {tool: string}
hypotheses:
  family: finite-table
  category: action.tool
  table:
    - {name: low, prior: 0.5, rates: {a: 0.01, b: 0.05}}
    - {name: high, prior: 0.5, rates: {a: 0.03, b: 0.3}}
outcome: {name: harmful, type: bool}
harm: outcome.harmful
bound: {kind: ratio, delta: 0.05}
decision: {reject_above: 0.15}
"""
POLICY = parse_policy(TEXT)
SOUND, TOO_LOW = {"a": 0.02, "b": 0.1}, {"a": 0.4, "b": 0.5}


class Deployment:
    """An honest service that logs what it decides and what it is told."""

    def __init__(self, store):
        self.store, self.told = store, []

    def play(self, world, rates, steps=150, seed=0, policy=POLICY, skip=lambda step: False):
        self.store.record_policy(policy.name, policy.revision, policy.document)
        guard, generator = Guard(policy, world=world), np.random.default_rng(seed)
        for step in range(steps):
            action = {"tool": "ab"[step % 2]}
            verdict = guard.check({}, action)
            self.store.append_decisions([LoggedDecision(verdict, {}, action, float(step)).to_record()])
            harm = bool(generator.random() < rates[action["tool"]])
            if verdict.accepted and not skip(step):
                guard.observe({}, action, harm)
                self.report(world, verdict.decision_id, action, harm, policy.name)
                self.told.append((verdict.harm_bound, verdict.predictive_harm, harm))

    def report(self, world, observation_id, action, outcome, policy="tools"):
        content = canonical_json({"action": action, "context": {}, "outcome": outcome})
        self.store.append_observations([NewObservation(policy, world, observation_id, digest(content), content)])


@pytest.fixture
def deployment(tmp_path):
    store = open_store(tmp_path / "log.db")
    yield Deployment(store)
    store.close()


def calibrate(store, **options):
    found = Calibration(store, **options)
    for _ in found.run():
        pass
    return found


class Altered:
    """A store some of whose records are others, checksums and all."""

    def __init__(self, store, decision=lambda record: record, document=None):
        self._store, self._decision, self._document = store, decision, document

    def __getattr__(self, name):
        return getattr(self._store, name)

    def decision(self, decision_id):
        record = self._store.decision(decision_id)
        return record and self._decision(record)

    def policy_document(self, revision):
        return self._store.policy_document(revision) if self._document is None else self._document(revision)


# ---------------------------------------------------------------- what is computed


def test_the_sums_are_those_of_what_was_promised_and_told(deployment):
    deployment.play("w", SOUND)
    found = calibrate(deployment.store)
    (row,) = found.rows
    bounds, predicted, harms = zip(*deployment.told, strict=True)
    expected, _ = evidence.update(evidence.init(), bounds, harms)
    np.testing.assert_array_equal(row.evidence.log_stakes, expected.log_stakes)
    assert row.evidence[:2] + row.evidence[3:] == expected[:2] + expected[3:]
    assert row.residuals == residuals.update(residuals.init(), predicted, harms)[0]
    assert (row.decisions, row.outcomes, row.harms) == (150, len(harms), sum(harms))
    assert row.bounds == pytest.approx(sum(bounds))
    told = predictions(row, found.alpha)
    assert told.harm == pytest.approx(np.mean(harms))
    assert told.interval[0] <= told.harm <= told.interval[1]
    assert told.finding == "plausible"
    assert found.alarms == 0


def test_a_class_that_is_wrong_raises_an_alarm(deployment):
    """The truth is far worse than the most harmful hypothesis, and the bound is not running: nothing else notices."""
    deployment.play("sound", SOUND)
    deployment.play("wrong", TOO_LOW, steps=300, seed=1)
    found = calibrate(deployment.store)
    assert {row.world: row.alarm_at is not None for row in found.rows} == {"sound": False, "wrong": True}
    wrong = found.rows[1]
    _, values = evidence.update(
        evidence.init(), *zip(*[(b, h) for b, _, h in deployment.told[-wrong.outcomes :]], strict=True)
    )
    assert wrong.alarm_at == 1 + int(np.argmax(values >= found.threshold))
    assert predictions(wrong, 0.01).finding == "too low"


def test_a_new_revision_has_evidence_of_its_own(deployment):
    deployment.play("w", SOUND, steps=40)
    later = parse_policy(TEXT.replace("reject_above: 0.15", "reject_above: 0.4"))
    deployment.store.record_policy(later.name, later.revision, later.document)
    guard = Guard(later, world="w")
    for record in deployment.store.observations("tools", "w"):
        content = json.loads(record.content)
        guard.observe(content["context"], content["action"], content["outcome"])
    verdict = guard.check({}, {"tool": "a"})
    deployment.store.append_decisions([LoggedDecision(verdict, {}, {"tool": "a"}, 0.0).to_record()])
    deployment.report("w", verdict.decision_id, {"tool": "a"}, False)
    rows = {row.policy_revision: row for row in calibrate(deployment.store).rows}
    assert (rows[later.revision].decisions, rows[later.revision].outcomes) == (1, 1)
    assert rows[POLICY.revision].decisions == 40


def test_accepted_decisions_without_a_report_are_counted(deployment):
    deployment.play("w", SOUND, skip=lambda step: step % 10 == 0)
    deployment.report("w", "a name of its own", {"tool": "a"}, False)
    found = calibrate(deployment.store)
    (row,) = found.rows
    assert row.accepted_unreported == row.accepted - row.outcomes > 0
    assert found.unnamed == 1


def test_a_rejected_action_that_was_carried_out_counts_with_its_bound(deployment):
    deployment.play("w", SOUND, steps=2)
    rejected = next(r for r in deployment.store.decisions() if r.decision == "reject")
    deployment.report("w", rejected.decision_id, {"tool": "b"}, True)
    (row,) = calibrate(deployment.store).rows
    assert (row.outcomes, row.accepted_reported, row.harms) == (2, 1, 1)
    assert row.bounds == pytest.approx(0.03 + 0.3)


def test_each_log_of_a_world_that_was_reset_has_a_row(deployment):
    deployment.play("w", SOUND, steps=20)
    left = next(r.decision_id for r in deployment.store.decisions() if r.decision == "reject")
    deployment.store.reset_world("tools", "w", 1, "a new machine", "")
    verdict, action = Guard(POLICY, world="w").check({}, {"tool": "a"}), {"tool": "a"}
    record = replace(LoggedDecision(verdict, {}, action, 99.0).to_record(), generation=2)
    deployment.store.append_decisions([record])
    deployment.report("w", verdict.decision_id, action, True)
    # The outcome of a decision of the closed log is about another posterior and another count.
    deployment.report("w", left, {"tool": "b"}, True)
    found = calibrate(deployment.store)
    first, second = found.rows
    assert (first.generation, first.outcomes) == (1, len(deployment.told))
    assert (second.generation, second.outcomes, second.harms) == (2, 1, 1)
    assert found.unusable == {"OTHER_WORLD": 1}
    assert "generation 2" in second.title


def test_only_what_was_asked_for_is_read(deployment):
    deployment.play("one", SOUND, steps=20)
    deployment.play("two", SOUND, steps=20)
    assert [row.world for row in calibrate(deployment.store, policy="tools", world="two").rows] == ["two"]


# ---------------------------------------------------------------- reports that say nothing


def altered(**changes):
    def edit(record):
        return replace(record, **changes)

    return edit


def verdict_with(**changes):
    def edit(record):
        return replace(record, verdict=json.dumps({**json.loads(record.verdict), **changes}))

    return edit


@pytest.mark.parametrize(
    ("edit", "code"),
    [
        (altered(world="elsewhere"), "OTHER_WORLD"),
        (altered(request='{"action": {"tool": "b"}, "context": {}}'), "OTHER_ACTION"),
        (altered(request='{"action": {"tool": "a"}, "context": {"n": 1}}'), "OTHER_ACTION"),
        (altered(request="[]"), "RECORD_UNREADABLE"),
        (altered(verdict="{}"), "RECORD_UNREADABLE"),
        (verdict_with(harm_bound=float("nan")), "RECORD_UNREADABLE"),
        (verdict_with(harm_bound=1.5), "RECORD_UNREADABLE"),
        (verdict_with(posterior_revision=10**6), "BOUND_TOO_LATE"),
        (altered(policy_revision="f" * 64), "POLICY_UNKNOWN"),
    ],
)
def test_what_says_nothing_is_left_out_and_told(deployment, edit, code):
    deployment.play("w", SOUND, steps=40)
    victim = next(iter(deployment.store.observations("tools", "w"))).observation_id

    def change(record):
        return edit(record) if record.decision_id == victim else record

    found = calibrate(Altered(deployment.store, change))
    assert found.unusable == {code: 1}
    assert found.examples[code]
    assert found.rows[0].outcomes == len(deployment.told) - 1


def test_an_outcome_that_does_not_fit_is_left_out(deployment):
    deployment.play("w", SOUND, steps=10)
    verdict = Guard(POLICY, world="w").check({}, {"tool": "a"})
    deployment.store.append_decisions([LoggedDecision(verdict, {}, {"tool": "a"}, 0.0).to_record()])
    deployment.report("w", verdict.decision_id, {"tool": "a"}, "yes")
    assert calibrate(deployment.store).unusable == {"OUTCOME_MISFIT": 1}


@pytest.mark.parametrize("document", [None, "schema: guardrail/v1", TEXT.replace("0.15", "0.2")])
def test_without_the_policy_there_is_no_harm_to_know(deployment, document):
    deployment.play("w", SOUND, steps=10)
    with pytest.raises(LogUnusable, match="POLICY_UNKNOWN") as caught:
        calibrate(Altered(deployment.store, document=lambda revision: document))
    assert caught.value.reason == "LOG_UNREPORTED"


def test_a_log_without_joined_reports_has_no_answer(deployment):
    deployment.play("w", SOUND, steps=10, skip=lambda step: True)
    with pytest.raises(LogUnusable) as caught:
        calibrate(deployment.store)
    assert caught.value.reason == "LOG_UNREPORTED"


@pytest.mark.parametrize(("only", "reason"), [({"policy": "other"}, "OTHER_POLICY"), ({"world": "other"}, "LOG_EMPTY")])
def test_a_log_of_something_else_is_refused(deployment, only, reason):
    deployment.play("w", SOUND, steps=10)
    with pytest.raises(LogUnusable) as caught:
        Calibration(deployment.store, **only)
    assert caught.value.reason == reason


@pytest.mark.parametrize("alpha", [0.0, 1.0, float("nan")])
def test_levels_are_checked(deployment, alpha):
    with pytest.raises(ValueError, match="alpha"):
        Calibration(deployment.store, alpha=alpha)


# ---------------------------------------------------------------- worlds that are special


MEMORY = """
schema: guardrail/v1
name: wear
description: A machine that wears out.
hypotheses:
  family: hidden-markov
  table:
    - {name: slow, initial: [1, 0], transitions: [[0.98, 0.02], [0, 1]], rates: [0.01, 0.5]}
    - {name: fast, initial: [1, 0], transitions: [[0.8, 0.2], [0, 1]], rates: [0.01, 0.5]}
outcome: {name: fault, type: bool}
harm: outcome.fault
bound: {kind: ratio, delta: 0.05}
decision: {reject_above: 0.15}
"""


def test_in_a_world_with_memory_the_bound_must_know_every_outcome_before(deployment):
    policy = parse_policy(MEMORY)
    deployment.store.record_policy(policy.name, policy.revision, policy.document)
    guard = Guard(policy, world="w")
    for verdict in [guard.check({}, {}) for _ in range(2)]:
        deployment.store.append_decisions([LoggedDecision(verdict, {}, {}, 0.0).to_record()])
        deployment.report("w", verdict.decision_id, {}, False, policy.name)
    found = calibrate(deployment.store)
    assert found.unusable == {"BOUND_TOO_OLD": 1}
    assert found.rows[0].outcomes == 1


def test_harm_within_several_steps_is_not_compared_with_one(deployment):
    """What is promised is an unsafe state within 4 steps, and an outcome is the next: evidence, but no calibration."""
    policy = load_policy(ROOT / "policies" / "frozen-lake" / "policy.yaml")
    deployment.store.record_policy(policy.name, policy.revision, policy.document)
    guard, context, action = Guard(policy, world="w"), {"state": 0}, {"action": 0}
    verdict = guard.check(context, action)
    deployment.store.append_decisions([LoggedDecision(verdict, context, action, 0.0).to_record()])
    content = canonical_json({"action": action, "context": context, "outcome": {"state": 0}})
    deployment.store.append_observations(
        [NewObservation(policy.name, "w", verdict.decision_id, digest(content), content)]
    )
    (row,) = calibrate(deployment.store).rows
    assert (row.steps, row.outcomes, row.harms) == (4, 1, 0)
    assert predictions(row, 0.01) is None


# ---------------------------------------------------------------- what is kept


def test_a_course_of_any_length_keeps_few_points():
    course = Course()
    for outcome in range(1, 20_001):
        course.add(outcome, float(outcome), residuals.init())
    outcomes = [point[0] for point in course.points]
    assert 500 <= len(outcomes) < 2_000
    assert len(set(np.diff(outcomes))) == 1
    assert outcomes[-1] > 20_000 - 2 * np.diff(outcomes)[0]


def test_courses_are_kept_of_the_worlds_with_the_most_evidence(deployment):
    for number in range(CURVES_KEPT + 2):
        deployment.play(f"w{number}", TOO_LOW if number in (0, 5) else SOUND, steps=30, seed=number)
    found = calibrate(deployment.store, courses=True)
    kept = {row.world for row in found.rows if row.course is not None}
    assert len(kept) == CURVES_KEPT
    assert {"w0", "w5"} <= kept
    assert all(row.course is None for row in calibrate(deployment.store).rows)


@pytest.mark.slow
def test_harm_of_a_program_is_known_from_its_files(deployment, tmp_path):
    policy = load_policy(program_policies.write(tmp_path / "p"))
    deployment.store.record_policy(policy.name, policy.revision, policy.document)
    guard, context = Guard(policy, world="w"), {"x": 1.0}
    verdict = guard.check(context, {})
    close(guard._judge.oracle)
    deployment.store.append_decisions([LoggedDecision(verdict, context, {}, 0.0).to_record()])
    content = canonical_json({"action": {}, "context": context, "outcome": {"y": 5.5}})
    deployment.store.append_observations([NewObservation("p", "w", verdict.decision_id, digest(content), content)])
    (row,) = calibrate(deployment.store, policies=[policy]).rows
    assert (row.outcomes, row.harms) == (1, 1)
    with pytest.raises(LogUnusable, match="a program is code"):
        calibrate(deployment.store)
