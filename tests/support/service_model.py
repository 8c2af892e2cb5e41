"""What a service must answer: the in-process guard, fed with what the service acknowledged."""

from __future__ import annotations

import math

from google.protobuf.message import DecodeError

from guardrail.guard import Guard
from guardrail.server.reasons import INTERNAL, REASONS
from guardrail.v1 import guardrail_pb2 as pb
from guardrail.wire import DECISION_FROM_PROTO, accept_is_backed, struct_to_dict, value_to_plain


class Model:
    """Guards that hold what a service acknowledged. One caller at a time, or its revisions are not the service's."""

    def __init__(self, policies):
        self._guards = {policy.name: Guard(policy) for policy in policies}
        self._worlds = {}
        self._seen = {}
        self._generations = {}

    def guard(self, policy, world):
        """The guard of a world; at the prior if nothing was reported."""
        return self._worlds.get((policy, world)) or self._guards[policy].fork(world=world)

    def refused(self, method, data, code, reason):
        """Check a status other than OK; conflicting reports leave the others counted."""
        assert reason in REASONS, f"{method} ended with {code} and the unknown reason {reason!r}"
        assert reason != INTERNAL, f"{method} ended with a defect"
        assert code == REASONS[reason].name
        if reason == "REPORT_CONFLICT":
            self._take_up(method, data)

    def answered(self, method, data, reply):
        """Check a reply's bytes against what the guards say to the same request."""
        reply = getattr(pb, f"{method}Response").FromString(reply)
        if method.startswith("Report"):
            self._take_up(method, data)
        elif method == "ResetWorld":
            request = pb.ResetWorldRequest.FromString(data)
            if reply.generation > self._generations.get((request.policy, request.world), 1):
                self._generations[request.policy, request.world] = reply.generation
                self._worlds.pop((request.policy, request.world), None)
                self._seen.pop((request.policy, request.world), None)
        elif method.startswith("Check"):
            request = getattr(pb, f"{method}Request").FromString(data)
            actions = [request.action] if method == "CheckAction" else request.actions
            verdicts = [reply.verdict] if method == "CheckAction" else reply.verdicts
            self._compare(request, actions, verdicts)

    def _compare(self, request, actions, verdicts):
        guard = self.guard(request.policy, request.world)
        expected = guard.check_many(struct_to_dict(request.context), [struct_to_dict(a) for a in actions])
        assert len(expected) == len(verdicts)
        for own, sent in zip(expected, verdicts, strict=True):
            assert sent.posterior_revision == guard.revision
            assert DECISION_FROM_PROTO[sent.decision] is own.decision
            assert math.isclose(sent.harm_bound, own.harm_bound, rel_tol=1e-9, abs_tol=1e-9)
            if sent.decision == pb.DECISION_ACCEPT:
                limit = sent.escalate_above if sent.HasField("escalate_above") else None
                assert accept_is_backed(sent.harm_bound, sent.threshold, limit)

    def _take_up(self, method, data):
        request = getattr(pb, f"{method}Request").FromString(data)
        reports = [request.report] if method == "ReportOutcome" else request.reports
        key = (request.policy, request.world)
        for report in reports:
            if (key, report.observation_id) not in self._seen.setdefault(key, set()):
                self._seen[key].add((key, report.observation_id))
                self._worlds.setdefault(key, self.guard(*key)).observe(
                    struct_to_dict(report.context), struct_to_dict(report.action), value_to_plain(report.outcome)
                )


def parses(message_class, data):
    """The message of some bytes; None if they are none."""
    try:
        return message_class.FromString(data)
    except DecodeError:
        return None
