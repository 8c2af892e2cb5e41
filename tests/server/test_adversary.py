"""An agent that tries everything at once, against two services over one PostgreSQL: the store tells what it got."""

from __future__ import annotations

import contextlib
import json
import random
import threading
import time
from collections import Counter, defaultdict
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction

import pytest
from budget_policies import HIGH, LOW, MID, SESSION, WINDOW, budgeted
from security_files import CallersFile
from server_process import ServerProcess

import guardrail
from guardrail.approvals import EscalationState
from guardrail.audit import Audit
from guardrail.domain import Decision
from guardrail.errors import GuardrailError
from guardrail.replay import replay
from guardrail.store import open_store
from guardrail.store.decisions import LoggedDecision

pytestmark = pytest.mark.slow

AGENTS = ("one", "two")
SESSIONS = tuple("abcdefghijkl")
TOTAL = Fraction(1, 2)
TURNS = 25

GATE = "escalate_above: 0.2, "
POLICIES = {
    "sessions": budgeted("sessions", SESSION, more=GATE),
    "windows": budgeted("windows", WINDOW, more=GATE),
}
OTHERS = {
    "sessions": POLICIES["sessions"].replace("reject_above: 0.5", "reject_above: 0.4"),
    "windows": POLICIES["windows"].replace("total: 0.5", "total: 0.375").replace("24h", "48h"),
}
EXPECTED = {"PERMISSION_DENIED", "SELF_APPROVAL", "ESCALATION_CLOSED", "ESCALATION_NOT_FOUND", "GENERATION_MISMATCH"}


class Arena:
    """Two services, and who may call them.

    Attributes:
        seen: what the agents were told, by decision id.
        calm: set when nobody changes policies and worlds any more.
        over: set when all is over.
    """

    def __init__(self, folder, url):
        self.folder, self.url = folder / "policies", url
        self.callers = CallersFile(folder / "callers.yaml").add("person", "approver, viewer")
        self.callers.add("operator", "operator, reporter")
        for name in AGENTS:
            self.callers.add(name, "agent, viewer" if name == "one" else "agent, approver")
        self.write(POLICIES)
        settings = {
            "listen": "127.0.0.1:0",
            "policies": [str(self.folder)],
            "store": url,
            "callers": str(self.callers.write()),
            "compilation_cache": str(folder / "kernels"),
        }
        self.processes = [ServerProcess(settings) for _ in range(2)]
        self.seen, self.calm, self.over = {}, threading.Event(), threading.Event()
        self._open = contextlib.ExitStack()

    def write(self, documents):
        for name, document in documents.items():
            file = self.folder / name / "policy.yaml"
            file.parent.mkdir(parents=True, exist_ok=True)
            fresh = file.with_suffix(".new")
            fresh.write_text(document)
            fresh.replace(file)

    def client(self, caller, replica):
        port = self.processes[replica].port
        made = guardrail.Client(f"127.0.0.1:{port}", token=self.callers.keys[caller], timeout=20.0)
        return self._open.enter_context(made)

    @contextlib.contextmanager
    def refused(self):
        """What is refused with a reason that it should be."""
        try:
            yield
        except GuardrailError as error:
            if error.reason not in EXPECTED:
                raise

    def agent(self, name, seed):
        """Asks for whatever it likes, with approvals that it has, had, or never had, of both services at once."""
        draw, clients = random.Random(seed), [self.client(name, replica) for replica in range(2)]
        mine = []
        with ThreadPoolExecutor(2) as both:
            for _ in range(TURNS):
                policy, action = draw.choice(sorted(POLICIES)), draw.choice((LOW, MID, MID, HIGH))
                asked = {"policy": policy, "world": "w", "context": {}, "session": draw.choice(SESSIONS)}
                if draw.random() < 0.2:
                    told = draw.choice(clients).check_many(**asked, actions=[LOW, MID, HIGH, LOW]).verdicts
                else:
                    approval, known = draw.choice(mine[-6:]) if mine and draw.random() < 0.7 else (None, policy)
                    if approval is not None and draw.random() < 0.8:
                        asked["policy"], action = known, MID
                    calls = [both.submit(c.check, **asked, action=action, approval=approval) for c in clients]
                    told = [call.result() for call in calls]
                self.seen |= {verdict.decision_id: verdict for verdict in told}
                mine += [(v.decision_id, v.policy) for v in told if v.decision is Decision.ESCALATE]
                if mine and draw.random() < 0.2:
                    with self.refused():  # its own, which it may not
                        draw.choice(clients).resolve_escalation(draw.choice(mine)[0], digest="0" * 64, approve=True)

    def person(self, seed):
        """Approves most of what waits."""
        draw, clients = random.Random(seed), [self.client("person", replica) for replica in range(2)]
        while not self.over.is_set():
            for one in list(draw.choice(clients).escalations()):
                with self.refused():
                    draw.choice(clients).resolve_escalation(
                        one.escalation_id, digest=one.digest, approve=draw.random() < 0.8
                    )
            self.over.wait(0.02)

    def operator(self):
        """Changes the policies under everybody's feet, and resets the world."""
        clients = [self.client("operator", replica) for replica in range(2)]
        generations = Counter({"sessions": 1, "windows": 1})
        for policy in POLICIES:
            clients[0].report(policy=policy, world="w", context={}, action=LOW, outcome=False)
        while not self.calm.is_set():
            for documents in (OTHERS, POLICIES):
                self.write(documents)
                for client in clients:
                    client.reload_policies(timeout=30)
                    self.calm.wait(0.5)
            for policy in POLICIES:
                clients[1].reset_world(policy, "w", generation=generations[policy], reason="test")
                generations[policy] += 1

    def finale(self, name, seed):
        """Of many checks that use one approval, or one session, at once at both services, no more pass than may."""
        clients = [self.client(name, replica) for replica in range(2)]
        asked = {"policy": "sessions", "world": "w", "context": {}, "action": MID, "session": f"last-{seed}"}
        verdict = clients[0].check(**asked)
        assert verdict.decision is Decision.ESCALATE
        first, end = verdict.decision_id, time.monotonic() + 30
        while (state := self.state_of(clients[1], first)) is EscalationState.PENDING:
            assert time.monotonic() < end
            self.over.wait(0.02)
        with ThreadPoolExecutor(6) as pool:
            told = list(pool.map(lambda client: client.check(**asked, approval=first), clients * 3))
        self.seen |= {one.decision_id: one for one in (verdict, *told)}
        assert sum(one.accepted for one in told) == (state is EscalationState.APPROVED)
        with ThreadPoolExecutor(2) as pool:
            for turn in range(20):
                asked = {"policy": "sessions", "world": "w", "context": {}, "session": f"rush-{seed}-{turn}"}
                rush = [pool.submit(client.check_many, **asked, actions=[LOW] * 3) for client in clients]
                told = [verdict for one in rush for verdict in one.result().verdicts]
                self.seen |= {one.decision_id: one for one in told}
                assert sum(one.accepted for one in told) == 4

    def state_of(self, client, escalation_id):
        return next(o.state for o in client.escalations("sessions", state=None) if o.escalation_id == escalation_id)

    def run(self):
        for process in self.processes:
            process.wait_until_serving()
        with self._open, ThreadPoolExecutor(16) as pool:
            person, operator = pool.submit(self.person, 100), pool.submit(self.operator)
            try:
                for play in (self.agent, self.finale):
                    for agent in [pool.submit(play, AGENTS[seed % 2], seed) for seed in range(6)]:
                        agent.result(120)
                    self.calm.set()
                    operator.result(60)
            finally:
                self.calm.set()
                self.over.set()
            person.result(60)

    def close(self):
        for process in self.processes:
            process.process.kill()
            process._wait()


@pytest.fixture
def arena(tmp_path, postgres_url):
    arena = Arena(tmp_path, postgres_url)
    yield arena
    arena.close()


def test_an_adversary_gets_no_more_than_the_budgets_and_the_approvals_say(arena, postgres_server):
    arena.run()
    for process in arena.processes:
        process.terminate()
    database = arena.url.rsplit("/", 1)[1]
    reserved = postgres_server.execute("SELECT decision_id, units, budget_id FROM reservations", database=database)
    sessions = dict(postgres_server.execute("SELECT id, policy || '/' || session FROM budgets", database=database))
    with contextlib.closing(open_store(arena.url, read_only=True)) as store:
        decisions = [LoggedDecision.from_record(record) for record in store.decisions()]
        escalations = {one.escalation_id: one for one in store.escalations(now=0.0, limit=100_000)}
        differing = [one for one in replay(store) if one.differences]
        audit = Audit(store.chains)
        for receipt in store.receipts():
            audit.take(receipt)
        audit.finish()
    logged = {decision.verdict.decision_id: decision for decision in decisions}
    accepted = {name: one.verdict for name, one in logged.items() if one.verdict.found is Decision.ACCEPT}
    # Whatever an agent was told is in the log, word for word in what matters.
    for name, verdict in arena.seen.items():
        assert (logged[name].verdict.decision, logged[name].verdict.harm_bound) == (
            verdict.decision,
            verdict.harm_bound,
        )
    # Each accept is backed by its numbers and by a share of its own that was set aside.
    shares = {name: (Fraction(units, 2**60), sessions[budget]) for name, units, budget in reserved}
    for name, verdict in accepted.items():
        assert verdict.harm_bound <= verdict.threshold
        assert verdict.approval is not None or verdict.harm_bound <= verdict.escalate_above
        assert shares[name][0] >= Fraction(verdict.harm_bound)
        assert shares[name][1] == f"{verdict.policy}/{verdict.budget.session}"
    spent = defaultdict(Fraction)
    for share, session in shares.values():
        spent[session] += share
    assert all(total <= TOTAL for total in spent.values())
    # Each approval let one action pass: the one that was asked about, for the one who asked, and said by another.
    used = Counter(verdict.approval.escalation_id for verdict in accepted.values() if verdict.approval is not None)
    assert set(used.values()) <= {1}
    for name, verdict in accepted.items():
        if verdict.approval is not None:
            one, asked = escalations[verdict.approval.escalation_id], logged[verdict.approval.escalation_id]
            assert (one.state, one.used_by) == (EscalationState.USED, name)
            assert (one.policy_revision, one.world) == (verdict.policy_revision, verdict.world)
            assert (asked.action, asked.caller) == (logged[name].action, logged[name].caller)
            assert one.approver not in ("", one.caller)
    assert not differing, json.dumps([str(one) for one in differing[:3]])
    assert not audit.counts
    # It was a fight: every way out was tried.
    codes = Counter(one.verdict.reasons[0].code.value for one in decisions)
    told = {
        "BUDGET_EXHAUSTED",
        "APPROVED",
        "APPROVAL_MISMATCH",
        "APPROVAL_USED",
        "APPROVAL_PENDING",
        "WITHIN_THRESHOLD",
    }
    assert told <= codes.keys(), codes
