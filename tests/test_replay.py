import functools
import json
import math
import random
from dataclasses import replace

import pytest

from guardrail.canonical import canonical_json, digest
from guardrail.domain import (
    CautiousHypothesis,
    Decision,
    Guarantee,
    GuaranteeKind,
    Reason,
    ReasonCode,
    Search,
    Verdict,
)
from guardrail.guard import Guard
from guardrail.policy import parse_policy
from guardrail.records import verdict_to_dict
from guardrail.replay import compare, replay
from guardrail.store import open_store
from guardrail.store.base import NewObservation
from guardrail.store.decisions import LoggedDecision

HEAD = "schema: guardrail/v1\nname: {name}\ndescription: For a test.\n"

COIN = (
    HEAD.format(name="coin")
    + """
action:
  kind: string
  size: {type: number, optional: true}
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
  - {when: 'has(action.size) && action.size > 10.0', decide: reject, reason: too large}
  - {when: 'has(action.size) && action.size > 5.0', decide: escalate, reason: large}
"""
)

LATTICE = (
    HEAD.format(name="lattice")
    + """
action: {phi: {type: list, length: 3}}
features: {phi: action.phi}
hypotheses: {family: linear-gaussian-lattice, levels: 3, noise_sd: 1}
outcome: {name: reward, type: number}
harm: outcome.reward > 2.5
bound: {kind: plausible, alpha: 0.001}
decision: {reject_above: 0.3}
"""
)

RATES = (
    HEAD.format(name="rates")
    + """
action: {tool: string}
hypotheses: {family: beta-bernoulli, category: action.tool, categories: [a, b, c], prior: {a: 1, b: 4}}
outcome: {name: harmful, type: bool}
harm: outcome.harmful
bound: {kind: ratio, delta: 0.1}
decision: {reject_above: 0.6, escalate_above: 0.3}
"""
)

LINEAR = (
    HEAD.format(name="linear")
    + """
action: {x: number}
features: {one: '1.0', x: action.x}
hypotheses: {family: gaussian-linear, noise_sd: 0.5, prior: {mean: 0, sd: 1}}
outcome: {name: heat, type: number}
harm: outcome.heat > 3.0
bound: {kind: ratio, delta: 0.05}
decision: {reject_above: 0.1}
"""
)

ACTIONS = {
    "coin": lambda r: r.choice(
        [{"kind": "low"}, {"kind": "high"}, {"kind": "low", "size": 20.0}, {"kind": "low", "size": 7.0}]
    ),
    "lattice": lambda r: {"phi": [float(r.randrange(3)) for _ in range(3)]},
    "rates": lambda r: {"tool": r.choice("abc")},
    "linear": lambda r: {"x": r.uniform(-1, 1)},
}
OUTCOMES = {
    "coin": lambda r: r.random() < 0.1,
    "lattice": lambda r: r.gauss(1, 1),
    "rates": lambda r: r.random() < 0.2,
    "linear": lambda r: r.gauss(0, 1),
}
BAD = [({}, {}), ({"nobody": 1.0}, {}), ({}, {"kind": math.nan, "phi": [math.nan], "tool": math.inf, "x": math.nan})]


@functools.cache
def prior_guard(document):
    return Guard(parse_policy(document))


class Log:
    """An honest service: decides by a guard, and logs what it decided and what it was told."""

    def __init__(self, store):
        self.store = store

    def play(self, document, worlds=("one", "two"), steps=12, seed=0):
        prior, r = prior_guard(document), random.Random(seed)
        policy = prior.policy
        self.store.record_policy(policy.name, policy.revision, policy.document)
        for world in worlds:
            guard = prior.fork(world=world)
            for step in range(steps):
                asked = [({}, ACTIONS[policy.name](r)) for _ in range(2)] + ([r.choice(BAD)] if step % 4 == 0 else [])
                for place, (context, action) in enumerate(asked):
                    self.log(guard.check(context, action), context, action, step + place / 10)
                action, outcome = ACTIONS[policy.name](r), OUTCOMES[policy.name](r)
                guard.observe({}, action, outcome)
                self.observe(policy.name, world, f"{seed}-{step}", action, outcome)

    def log(self, verdict, context, action, at=0.0):
        self.store.append_decisions([LoggedDecision(verdict, context, action, at).to_record()])

    def observe(self, policy, world, name, action, outcome):
        content = canonical_json({"action": action, "context": {}, "outcome": outcome})
        self.store.append_observations([NewObservation(policy, world, name, digest(content), content)])


@pytest.fixture
def log(tmp_path):
    store = open_store(tmp_path / "log.db")
    yield Log(store)
    store.close()


class Altered:
    """A store whose decisions were altered, checksums and all."""

    def __init__(self, store, **changes):
        self._store = store
        self._changes = changes

    def __getattr__(self, name):
        return self._changes.get(name) or getattr(self._store, name)


def altered(store, edit):
    return Altered(store, decisions=lambda policy, world: map(edit, list(store.decisions(policy, world))))


def differing(store, **only):
    return [r for r in replay(store, **only) if r.differences]


def fields(store):
    return {d.field for r in differing(store) for d in r.differences}


# ---------------------------------------------------------------- honest logs


@pytest.mark.parametrize("document", [COIN, LATTICE, RATES, LINEAR], ids=["coin", "lattice", "rates", "linear"])
def test_an_honest_log_replays_without_a_difference(log, document):
    log.play(document)
    replayed = list(replay(log.store))
    assert len(replayed) == 2 * (12 * 2 + 3)
    assert {r.record.decision for r in replayed} >= {"reject"}
    assert [r for r in replayed if r.differences] == []


def test_decisions_under_several_revisions_and_policies_replay(log):
    log.play(COIN, worlds=("one",))
    log.play(RATES, worlds=("one",))
    # The later revision rests on observations that were made under the earlier one.
    policy = parse_policy(COIN.replace("reject_above: 0.2", "reject_above: 0.25"))
    log.store.record_policy(policy.name, policy.revision, policy.document)
    guard = Guard(policy, world="one")
    for record in log.store.observations("coin", "one"):
        content = json.loads(record.content)
        guard.observe(content["context"], content["action"], content["outcome"])
    log.log(guard.check({}, {"kind": "high"}), {}, {"kind": "high"})
    replayed = list(replay(log.store))
    assert len({r.record.policy_revision for r in replayed}) == 3
    assert [r for r in replayed if r.differences] == []


def test_only_what_was_asked_for_is_replayed(log):
    log.play(COIN)
    log.play(RATES)
    assert {r.record.policy for r in replay(log.store, policy="coin")} == {"coin"}
    assert {(r.record.policy, r.record.world) for r in replay(log.store, policy="rates", world="two")} == {
        ("rates", "two")
    }
    assert list(replay(log.store, world="nowhere")) == []


def test_a_store_that_is_being_written_to_can_be_replayed(log, tmp_path):
    log.play(COIN, steps=4)
    reader = open_store(tmp_path / "log.db", read_only=True)
    try:
        replayed = replay(reader)
        first = next(replayed)
        log.play(COIN, worlds=("three",), steps=6, seed=1)
        rest = list(replayed)
    finally:
        reader.close()
    assert [r for r in (first, *rest) if r.differences] == []
    # What came after the start is left to the next replay.
    assert {r.record.world for r in rest} == {"one", "two"}


def test_many_decisions_on_one_posterior_replay(log):
    log.play(RATES, worlds=(), steps=0)
    guard = prior_guard(RATES).fork(world="one")
    for place in range(600):
        action = {"tool": "abc"[place % 3]}
        log.log(guard.check({}, action), {}, action, float(place))
    replayed = list(replay(log.store))
    assert len(replayed) == 600
    assert [r for r in replayed if r.differences] == []


# ---------------------------------------------------------------- dishonest logs


def edited(record, **changes):
    verdict = json.loads(record.verdict)
    for path, value in changes.items():
        *outer, last = path.split("__")
        place = verdict
        for name in outer:
            place = place[name]
        place[last] = value
    columns = {n: verdict[n] for n in ("decision", "posterior_revision", "world", "policy_revision")}
    return replace(record, verdict=json.dumps(verdict), **columns)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"decision": "accept"}, "decision"),
        ({"harm_bound": 0.123}, "harm_bound"),
        ({"threshold": 0.21}, "threshold"),
        ({"escalate_above": None}, "escalate_above"),
        ({"predictive_harm": math.nan}, "predictive_harm"),
        ({"predictive_harm": None}, "predictive_harm"),
        ({"guarantee__confidence": 0.99}, "guarantee.confidence"),
        ({"guarantee__kind": "asymptotic"}, "guarantee.kind"),
        ({"cautious_hypothesis__harm": 0.4}, "cautious_hypothesis.harm"),
        ({"cautious_hypothesis__log_posterior": -0.1}, "cautious_hypothesis.log_posterior"),
        ({"cautious_hypothesis": None}, "cautious_hypothesis.harm"),
        ({"reasons": [{"code": "WITHIN_THRESHOLD", "message": ""}]}, "reasons"),
        ({"reasons": []}, "reasons"),
    ],
)
def test_any_altered_part_of_a_verdict_is_found(log, changes, field):
    log.play(COIN, worlds=("one",))
    victim = next(r for r in log.store.decisions() if json.loads(r.verdict)["harm_bound"] not in (1.0, 0.123))
    assert json.loads(victim.verdict)["decision"] != "accept"

    def edit(record):
        return edited(record, **changes) if record.decision_id == victim.decision_id else record

    found = differing(altered(log.store, edit))
    assert [r.record.decision_id for r in found] == [victim.decision_id]
    assert field in {d.field for d in found[0].differences}


def test_what_was_only_watched_replays_and_an_altered_finding_is_found(log):
    watched = COIN + "mode: shadow\n"
    log.play(watched, worlds=("one",))
    assert differing(log.store) == []
    victim = next(r for r in log.store.decisions() if r.decision == "reject")
    enforced = json.loads(victim.verdict)
    assert (enforced["decision"], enforced["enforced_decision"]) == ("accept", "reject")

    def edit(record, **changes):
        verdict = json.dumps({**json.loads(record.verdict), **changes})
        found = changes.get("enforced_decision") or "accept"
        return replace(record, verdict=verdict, decision=found) if record.decision_id == victim.decision_id else record

    for changes in ({"enforced_decision": "accept"}, {"enforced_decision": None, "shadow": False}):
        (found,) = differing(altered(log.store, functools.partial(edit, **changes)))
        assert "enforced_decision" in {d.field for d in found.differences}


def test_an_altered_request_is_found(log):
    log.play(COIN, worlds=("one",))
    victim = next(r for r in log.store.decisions() if json.loads(r.request)["action"] == {"kind": "high"})
    request = json.dumps({"action": {"kind": "low"}, "context": {}})

    def edit(record):
        return replace(record, request=request) if record.decision_id == victim.decision_id else record

    assert [r.record.decision_id for r in differing(altered(log.store, edit))] == [victim.decision_id]


def test_a_decision_that_is_moved_to_another_posterior_is_found(log):
    log.play(RATES, worlds=("one",))
    records = [
        r for r in log.store.decisions() if r.posterior_revision == 8 and "tool" in json.loads(r.request)["action"]
    ]

    def edit(record):
        return replace(record, posterior_revision=11) if record in records else record

    ordered = sorted(map(edit, log.store.decisions()), key=lambda r: r.posterior_revision)
    found = differing(Altered(log.store, decisions=lambda policy, world: iter(ordered)))
    assert {r.record.decision_id for r in found} == {r.decision_id for r in records}
    assert all("posterior_revision" in {d.field for d in r.differences} for r in found)


def test_a_column_that_contradicts_its_verdict_is_found(log):
    log.play(COIN, worlds=("one",), steps=2)
    store = altered(log.store, lambda r: replace(r, decision="accept" if r.decision != "accept" else "reject"))
    assert fields(store) == {"record.decision"}


@pytest.mark.parametrize(
    "changes",
    [
        {"verdict": "{}"},
        {"verdict": "[]"},
        {"verdict": "not json"},
        {"request": "[]"},
        {"request": '{"action": [], "context": {}}'},
        {"request": '{"action": {}}'},
    ],
)
def test_an_unreadable_record_is_found_and_the_others_are_replayed(log, changes):
    log.play(COIN, worlds=("one",), steps=3)
    victim = next(iter(log.store.decisions()))

    def edit(record):
        return replace(record, **changes) if record.decision_id == victim.decision_id else record

    replayed = list(replay(altered(log.store, edit)))
    assert len(replayed) == 7
    assert [[d.field for d in r.differences] for r in replayed if r.differences] == [["record"]]


def test_a_removed_observation_is_found(log):
    log.play(COIN, worlds=("one",))
    kept = list(log.store.observations("coin", "one"))[:5]
    found = differing(Altered(log.store, observations=lambda policy, world, after=0, generation=None: iter(kept)))
    assert {r.record.posterior_revision for r in found} == set(range(6, 12))
    assert {d.field for r in found for d in r.differences} == {"observations"}


def test_an_altered_observation_is_found(log):
    log.play(COIN, worlds=("one",))
    records = list(log.store.observations("coin", "one"))
    content = json.dumps({"action": {"kind": "high"}, "context": {}, "outcome": True})
    records[3] = replace(records[3], content=content)
    found = differing(Altered(log.store, observations=lambda policy, world, after=0, generation=None: iter(records)))
    assert min(r.record.posterior_revision for r in found) >= 4
    assert "harm_bound" in {d.field for r in found for d in r.differences}


def test_an_observation_that_does_not_fit_the_policy_is_named(log):
    log.play(COIN, worlds=("one",))
    records = list(log.store.observations("coin", "one"))
    records[3] = replace(records[3], content=json.dumps({"action": {}, "context": {}, "outcome": True}))
    found = differing(Altered(log.store, observations=lambda policy, world, after=0, generation=None: iter(records)))
    # Those on an earlier posterior are as they were.
    assert {r.record.posterior_revision for r in found} == set(range(4, 12))
    assert all("observation 4" in d.recomputed for r in found for d in r.differences)


@pytest.mark.parametrize(
    ("document", "told"),
    [(None, "not in the store"), ("schema: guardrail/v1", "policy.yaml:"), (RATES, None)],
    ids=["missing", "not a policy", "another policy"],
)
def test_without_the_policy_document_no_decision_is_reproduced(log, document, told):
    log.play(COIN, worlds=("one",), steps=3)
    store = Altered(log.store, policy_document=lambda revision: document)
    found = differing(store)
    assert len(found) == 7
    assert {d.field for r in found for d in r.differences} == {"policy_document"}
    assert told is None or all(told in r.differences[0].recomputed for r in found)


# ---------------------------------------------------------------- comparing


VERDICT = Verdict(
    decision=Decision.REJECT,
    harm_bound=0.5,
    threshold=0.2,
    escalate_above=None,
    predictive_harm=0.1,
    cautious_hypothesis=CautiousHypothesis("a", {"rate": 0.5}, 0.5, -2.0),
    guarantee=Guarantee(GuaranteeKind.THEOREM, 0.95, ("it is so",), "the paper"),
    reasons=(Reason(ReasonCode.HARM_BOUND_ABOVE_REJECT, "too much"),),
    policy="p",
    policy_revision="0" * 64,
    world="w",
    posterior_revision=3,
    decision_id="d",
)


def compared(**changes):
    return {d.field for d in compare(verdict_to_dict(VERDICT), replace(VERDICT, **changes))}


def test_rounding_is_no_difference():
    assert compared(harm_bound=0.5 + 9e-10) == set()
    assert compared(harm_bound=0.5 + 2e-9) == {"harm_bound"}
    assert compared(predictive_harm=math.nan) == {"predictive_harm"}


def test_words_are_no_difference():
    words = replace(VERDICT.guarantee, assumptions=("otherwise",), source="elsewhere")
    reasons = (Reason(ReasonCode.HARM_BOUND_ABOVE_REJECT, "other words"),)
    assert compared(guarantee=words, reasons=reasons, decision_id="other") == set()


def test_an_equally_cautious_hypothesis_is_no_difference():
    assert compared(cautious_hypothesis=CautiousHypothesis("b", {"rate": 0.4}, 0.5, -3.0)) == set()
    assert compared(cautious_hypothesis=CautiousHypothesis("b", {"rate": 0.4}, 0.6, -3.0)) == {
        "cautious_hypothesis.harm"
    }
    assert compared(cautious_hypothesis=CautiousHypothesis("a", {"rate": 0.4}, 0.5, -2.0)) == {
        "cautious_hypothesis.parameters.rate"
    }


def test_of_a_truncated_search_only_what_the_clock_does_not_decide_is_compared():
    """A bound that a deadline cut short is at least the whole search's, and accepts only by itself."""
    truncated = replace(VERDICT, search=Search(truncated=True, scanned=0.1))

    def against(logged, **changes):
        return {d.field for d in compare(verdict_to_dict(logged), replace(VERDICT, **changes))}

    lower = {"harm_bound": 0.01, "decision": Decision.ACCEPT, "cautious_hypothesis": None, "predictive_harm": 0.0}
    assert against(truncated, **lower) == set()
    assert against(truncated, harm_bound=0.6) == {"harm_bound"}
    assert against(replace(truncated, decision=Decision.ACCEPT), **{**lower, "decision": Decision.REJECT}) == {
        "decision"
    }
    assert against(truncated, posterior_revision=4) == {"posterior_revision"}
    assert against(replace(VERDICT, search=Search(truncated=False, scanned=0.1)), harm_bound=0.01) == {"harm_bound"}


def test_a_revision_is_compared_exactly():
    large = replace(VERDICT, posterior_revision=10**12)
    assert {d.field for d in compare(verdict_to_dict(large), replace(large, posterior_revision=10**12 + 1))} == {
        "posterior_revision"
    }


def test_nan_equals_nan():
    odd = replace(VERDICT, predictive_harm=math.nan)
    assert compare(verdict_to_dict(odd), odd) == ()
