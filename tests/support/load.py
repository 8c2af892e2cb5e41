"""Clients that check and report at once, retry with the same ids, and keep every answer; and what must hold of them."""

from __future__ import annotations

import collections
import itertools
import math
import random
import threading
import time

import guardrail
from guardrail.client.results import Report
from guardrail.domain import Decision
from guardrail.errors import GuardrailError
from guardrail.guard import Judge
from guardrail.policy import parse_policy
from guardrail.rebuild import observe_records

ACTIONS = ({"kind": "low"}, {"kind": "low"}, {"kind": "low", "size": 1.0}, {"kind": "high"})
PAUSE = 0.02
"""Seconds between a failure and the next attempt, for reporters, and between checks."""


class Load:
    """Threads that use a service until they are told to stop.

    Two reporters each share their ids, so that most reports are sent twice at about the same time. A report is
    sent again, as it was, until it is acknowledged; now and then an acknowledged one is sent once more.

    Args:
        target: the service's address.
        worlds: ids of the worlds to use.
        reporters: threads that report, an even number.
        checkers: threads that check.
        seed: of what is drawn.
        client: options of the clients.
    """

    def __init__(self, target, *, worlds=("w0", "w1", "w2"), reporters=4, checkers=2, seed=0, **client):
        self.acknowledged = {}
        self.verdicts = []
        self.violations = []
        self.failures = collections.Counter()
        self._sent = {}
        self._known = dict.fromkeys(worlds, 0)
        self._lock = threading.Lock()
        self._target, self._worlds, self._options = target, worlds, {"timeout": 5.0, **client}
        self._stopping = threading.Event()
        jobs = [(self._report, f"{seed}-{i // 2}-{i % 2}") for i in range(reporters)]
        jobs += [(self._check, f"{seed}-{i}") for i in range(checkers)]
        self._threads = [threading.Thread(target=self._guarded, args=job, daemon=True) for job in jobs]

    def start(self):
        """Start the threads."""
        for thread in self._threads:
            thread.start()
        return self

    def stop(self, seconds=60):
        """Let every report that was begun be acknowledged, and end. The service must be there again."""
        self._stopping.set()
        deadline = time.monotonic() + seconds
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
            assert not thread.is_alive(), f"a client hangs, or a report is never acknowledged; failed: {self.failures}"

    def wait_for(self, condition, seconds=30):
        """Wait until something holds of this load."""
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, f"it never came about; failed: {self.failures}; {self.violations[:3]}"
            time.sleep(0.005)

    def progress(self, seconds=30):
        """Wait until another report is acknowledged and another check answered, each from its beginning to its end."""
        reports, checks = len(self.acknowledged), len(self.verdicts)
        self.wait_for(lambda: len(self.acknowledged) > reports + 8 and len(self.verdicts) > checks + 4, seconds)

    # ------------------------------------------------------------ what the threads do

    def _guarded(self, job, name):
        try:
            with guardrail.Client(self._target, **self._options) as client:
                job(client, name)
        except Exception as error:  # noqa: BLE001 - told by `verify`
            self.violations.append(f"a client got what it must not: {error!r}")

    def _report(self, client, name):
        draw, pair = random.Random(name), name.rpartition("-")[0]
        mine = []
        for number in itertools.count():
            if self._stopping.is_set():
                return
            world = self._worlds[number % len(self._worlds)]
            fresh = [f"{pair}-{number}-{i}" for i in range(number % 3 + 1)]
            reports = [self._made(world, one) for one in fresh]
            if mine and draw.random() < 0.3:
                place = draw.choice(mine)
                self._until_acknowledged(client, place[0], [self._made(*place)])
            self._until_acknowledged(client, world, reports)
            mine += [(world, one) for one in fresh]

    def _made(self, world, name):
        """A report whose content follows from its id."""
        draw = random.Random(f"{world} {name}")
        action = draw.choice(ACTIONS)
        outcome = draw.random() < (0.04 if action["kind"] == "low" else 0.4)
        self._sent[world, name] = (action, outcome)
        return Report({}, action, {"hurt": outcome}, name)

    def _until_acknowledged(self, client, world, reports):
        while True:
            try:
                answers = client.report_many(policy="coin", world=world, reports=reports)
            except GuardrailError as error:
                self.failures["report", error.reason] += 1
                time.sleep(PAUSE)
                continue
            for answer in answers:
                place = (world, answer.observation_id)
                if self.acknowledged.setdefault(place, answer.posterior_revision) != answer.posterior_revision:
                    self.violations.append(f"{place} was acknowledged at {self.acknowledged[place]}, now {answer}")
                with self._lock:
                    self._known[world] = max(self._known[world], answer.posterior_revision)
            return

    def _check(self, client, name):
        draw = random.Random(name)
        while not self._stopping.is_set():
            world, action = draw.choice(self._worlds), draw.choice(ACTIONS)
            known = self._known[world]
            try:
                verdict = client.check(policy="coin", world=world, context={}, action=action)
            except GuardrailError as error:
                self.failures["check", error.reason] += 1
            else:
                self.verdicts.append((verdict, action))
                if verdict.posterior_revision < known:
                    self.violations.append(f"a check rests on {verdict.posterior_revision} of {known} in {world}")
            time.sleep(PAUSE)

    # ------------------------------------------------------------ what must hold

    def verify(self, store):
        """Nothing acknowledged is lost, moved or counted twice, and every verdict has the bound that its log gives."""
        assert self.violations == []
        logs = {world: list(store.observations("coin", world)) for world in self._worlds}
        for world, log in logs.items():
            assert [record.sequence for record in log] == list(range(1, len(log) + 1))
            places = {record.observation_id: record.sequence for record in log}
            assert len(places) == len(log), "an observation was counted twice"
            mine = {one: revision for (w, one), revision in self.acknowledged.items() if w == world}
            assert {one: places.get(one) for one in mine} == mine, "an acknowledged report is not where it was"
            assert all((world, one) in self._sent for one in places)
            for record in log:
                action, outcome = self._sent[world, record.observation_id]
                assert f'"hurt":{"true" if outcome else "false"}' in record.content
                assert f'"kind":"{action["kind"]}"' in record.content
        verify_verdicts([(v, {}, action) for v, action in self.verdicts], store, logs)
        return logs


def verify_verdicts(verdicts, store, logs):
    """Every accept, and every other bound that was computed, is what the policy says of the log at that revision.

    Args:
        verdicts: (verdict, context, action).
        store: has the policies' documents.
        logs: world -> its records.
    """
    groups = collections.defaultdict(list)
    for verdict, context, action in verdicts:
        if verdict.accepted or verdict.cautious_hypothesis is not None:
            groups[verdict.policy_revision, verdict.world].append((verdict, context, action))
        else:
            assert verdict.decision is Decision.REJECT or verdict.reasons[0].code == "RULE_MATCHED"
    judges = {}
    for (revision, world), group in sorted(groups.items()):
        if revision not in judges:
            judges[revision] = Judge(parse_policy(store.policy_document(revision)))
        judge, state, at = judges[revision], judges[revision].oracle.init(), 0
        for verdict, context, action in sorted(group, key=lambda entry: entry[0].posterior_revision):
            assert verdict.posterior_revision <= len(logs[world]), "a verdict rests on what is not in the log"
            state = observe_records(judge, state, logs[world][at : verdict.posterior_revision])
            at = verdict.posterior_revision
            prepared = judge.prepare(context, action)
            own = judge.decide(prepared, judge.bounds(state, [prepared])[0], world, at)
            assert math.isclose(verdict.harm_bound, own.harm_bound, rel_tol=1e-9, abs_tol=1e-9)
            assert verdict.decision is own.decision
