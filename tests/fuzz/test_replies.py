"""Any reply to any call of the client, over the wire's bytes: an error, or a value; an accept only if it is backed."""

from __future__ import annotations

from fuzz_targets import fuzz_reply
from hypothesis import given, settings
from hypothesis import strategies as st
from wire_mutations import damaged, numbers, structs, texts

from guardrail.v1 import guardrail_pb2 as pb

probabilities = st.sampled_from([0.0, 0.05, 0.2, 1.0]) | numbers
guarantees = st.builds(
    pb.Guarantee, kind=st.integers(-1, 6), confidence=probabilities, assumptions=st.lists(texts, max_size=2)
)
reasons = st.lists(st.builds(pb.Reason, code=st.just("WITHIN_THRESHOLD") | texts, message=texts), max_size=2)
verdicts = st.builds(
    pb.Verdict,
    decision=st.sampled_from([1, 1, 1, 0, 2, 3, 4, -1, 2**31 - 1]),
    harm_bound=st.none() | probabilities,
    threshold=st.none() | probabilities,
    escalate_above=st.none() | probabilities,
    predictive_harm=st.none() | probabilities,
    guarantee=st.none() | guarantees,
    reasons=reasons,
    notices=reasons,
    policy=st.sampled_from(["coin", "coin", "coin", "other"]),
    policy_revision=st.sampled_from(["r", "r", ""]),
    world=st.sampled_from(["w", "w", "w", "v"]),
    posterior_revision=st.sampled_from([0, 3, 2**64 - 1]),
    decision_id=st.sampled_from(["d", "d", ""]),
    search=st.none() | st.builds(pb.Search, truncated=st.booleans(), scanned=probabilities),
)
replies = st.one_of(
    st.builds(pb.CheckActionResponse, verdict=verdicts),
    st.builds(
        pb.CheckActionsResponse,
        verdicts=st.lists(verdicts, max_size=3),
        allowed=st.lists(st.sampled_from([0, 1, 2, 2**32 - 1]), max_size=3),
    ),
    st.builds(pb.GetDecisionResponse, decision=st.builds(pb.DecisionRecord, verdict=verdicts, context=structs)),
    st.builds(
        pb.ReportOutcomeResponse,
        result=st.builds(pb.ReportResult, posterior_revision=st.integers(0, 2**64 - 1), duplicate=st.booleans()),
    ),
)


@given(damaged(replies) | st.binary(max_size=100))
@settings(derandomize=True, deadline=None, database=None, max_examples=1_500)
def test_any_reply_is_an_error_or_a_value_and_accepts_only_if_it_is_backed(data):
    fuzz_reply(data)


@given(verdicts)
@settings(derandomize=True, deadline=None, database=None, max_examples=1_500)
def test_a_bare_verdict_accepts_only_if_it_is_backed(verdict):
    fuzz_reply(verdict.SerializeToString())
