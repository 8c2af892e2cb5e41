"""A store in memory that several services of one process share, with feeds that a test can disturb."""

from __future__ import annotations

import json
import queue
import threading
from contextlib import suppress

from guardrail.approvals import Escalation, used
from guardrail.canonical import canonical_json, digest
from guardrail.errors import StoreError
from guardrail.store.base import Appended, Changes, NewObservation, ObservationRecord, WorldRecord

CLOSED = object()


def observation(number, outcome=False, policy="coin", world="w", action=None, name=None):
    """An observation as a replica would append it."""
    content = canonical_json(
        {"action": {"kind": "low"} if action is None else action, "context": {}, "outcome": outcome}
    )
    return NewObservation(policy, world, name or f"o{number}", digest(content), content)


class SharedLog:
    """Durable as far as the test goes: what is appended stays until the test resets or truncates it.

    Attributes:
        failing: names of methods that raise StoreError.
        before, after: called with a method's name around every read of a log, on the reader's thread.
        confirm: called on the writer's thread after a commit, before anybody is told of it.
    """

    def __init__(self):
        self.lock = threading.RLock()
        self.logs, self.generations, self.documents, self.decided = {}, {}, {}, {}
        self.feeds, self.failing, self.closed_logs = [], set(), {}
        self.before = self.after = lambda method: None
        self.confirm = lambda batch: None
        self.reads, self.escalated, self.looked_up = [], {}, []

    def _require(self, method):
        if method in self.failing:
            raise StoreError(f"{method} fails")

    def append_observations(self, batch):
        self._require("append_observations")
        results = self.write(batch)
        self.confirm(batch)
        return results

    def write(self, batch, tell=True):
        """Append as any replica would."""
        with self.lock:
            results = []
            for new in batch:
                key = (new.policy, new.world)
                log, generation = self.logs.setdefault(key, []), self.generations.setdefault(key, 1)
                known = next((i for i, one in enumerate(log) if one.observation_id == new.observation_id), None)
                if known is None:
                    log.append(new)
                    results.append(Appended(len(log), False, False, generation))
                else:
                    same = log[known].digest == new.digest
                    results.append(Appended(known + 1 if same else 0, same, not same, generation))
        if tell:
            self.tell(*{(new.policy, new.world) for new in batch})
        return results

    def reset(self, policy="coin", world="w", tell=True):
        with self.lock:
            key = (policy, world)
            self.closed_logs[key, self.generations.get(key, 1)] = self.logs.get(key, [])
            self.logs[key], self.generations[key] = [], self.generations.get(key, 1) + 1
        if tell:
            self.tell(key)

    def tell(self, *keys):
        for feed in self.feeds:
            feed.changes.put(Changes(frozenset(keys), False))

    def log_of(self, policy, world, generation):
        key = (policy, world)
        present = generation in (None, self.generations.get(key, 1))
        return list(self.logs.get(key, []) if present else self.closed_logs.get((key, generation), []))

    def observations(self, policy, world, after=0, generation=None):
        self._require("observations")
        self.before("observations")
        with self.lock:
            log = self.log_of(policy, world, generation)
        self.reads.append(("observations", world, after))
        self.after("observations")
        for place, new in enumerate(log[after:], start=after + 1):
            yield ObservationRecord(place, new.observation_id, new.content, 0.0)

    def head(self, policy, world):
        self._require("head")
        self.before("head")
        with self.lock:
            key = (policy, world)
            found = WorldRecord(policy, world, len(self.logs[key]), self.generations[key]) if key in self.logs else None
        self.reads.append(("head", world, 0))
        self.after("head")
        return found

    def observation_count(self, policy, world, generation=None):
        return len(self.log_of(policy, world, generation))

    def worlds(self, policy=None):
        self._require("worlds")
        with self.lock:
            found = [
                WorldRecord(*key, len(log), self.generations[key])
                for key, log in sorted(self.logs.items())
                if log or self.generations[key] > 1
            ]
        return [one for one in found if policy in (None, one.policy)]

    def follow(self):
        feed = ScriptedFeed(self)
        self.feeds.append(feed)
        return feed

    def append_decisions(self, batch):
        self._require("append_decisions")
        for one in batch:
            self.decided[one.decision_id] = one

    def decision(self, decision_id):
        self._require("decision")
        self.looked_up.append(decision_id)
        return self.decided.get(decision_id)

    def decisions(self, policy=None, world=None):
        order = ("policy", "world", "generation", "policy_revision", "posterior_revision", "decided_at")
        found = [d for d in self.decided.values() if policy in (None, d.policy) and world in (None, d.world)]
        return iter(sorted(found, key=lambda one: [getattr(one, name) for name in order]))

    def open_escalations(self, batch):
        self._require("open_escalations")
        with self.lock:
            self.escalated |= {new.escalation_id: new for new in batch}

    def use_escalation(self, escalation_id, digest, caller, decision_id, now):
        self._require("use_escalation")
        with self.lock:
            after = used(self.escalated.get(escalation_id), escalation_id, digest, caller, decision_id, now)
            if isinstance(after, Escalation):
                self.escalated[escalation_id] = after
        self.after("use_escalation")
        return after

    def record_policy(self, name, revision, document):
        self.documents[revision] = document

    def policy_document(self, revision):
        return self.documents.get(revision)

    def save_snapshot(self, snapshot):
        pass

    def first_assumed(self, policy, world, generation):
        return None

    def latest_snapshot(self, policy, world, policy_revision, generation=None):
        return None

    def close(self):
        pass

    def outcomes(self, policy="coin", world="w"):
        """What the present log holds, in order."""
        with self.lock:
            return [json.loads(new.content)["outcome"] for new in self.logs.get((policy, world), [])]


class ScriptedFeed:
    """Says what the test, or a commit, puts into `changes`: Changes, an exception to raise, or CLOSED."""

    def __init__(self, log):
        self.log, self.changes = log, queue.Queue()
        self.missed = True

    def next(self, timeout):
        self.log._require("next")
        if self.missed:
            self.missed = False
            return Changes(frozenset(), True)
        with suppress(queue.Empty):
            said = self.changes.get(timeout=timeout)
            if isinstance(said, Exception):
                self.missed = True
                raise said
            if said is not CLOSED:
                return said
        return Changes(frozenset(), False)

    def close(self):
        self.changes.put(CLOSED)
