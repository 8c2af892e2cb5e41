"""Whatever does not fit the declarations is refused with its own reason, and nothing is defaulted."""

import contextlib
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from guardrail.domain import ReasonCode
from guardrail.errors import InvalidInput
from guardrail.policy import parse_policy
from guardrail.policy.schema import MAX_FIELDS, MAX_LIST_LENGTH, MAX_STRING_LENGTH

NAN, INF = math.nan, math.inf
GOOD_CONTEXT = {"temp": 1.5, "phi": [1, 2.5, -3]}
GOOD_ACTION = {"tool": "x", "count": 3.0, "dry": True}


def test_good_values_become_plain(policy):
    inputs = policy("logistic").inputs(GOOD_CONTEXT, GOOD_ACTION)
    assert inputs.context == {"temp": 1.5, "phi": [1.0, 2.5, -3.0]}
    assert inputs.action == {"tool": "x", "count": 3, "dry": True}
    assert [type(v) for v in inputs.context["phi"]] == [float] * 3
    assert type(inputs.action["count"]) is int
    assert type(policy("logistic").inputs({"temp": 7}, {}).context["temp"]) is float


def test_absent_fields_stay_absent(policy):
    inputs = policy("logistic").inputs({"temp": None}, {})
    assert inputs.context == {}
    assert inputs.action == {}


BAD = [
    ("context", {"tmp": 1.0}, "UNKNOWN_FIELD", "context has no field 'tmp'; did you mean 'temp'?"),
    ("context", {"tool": "x"}, "UNKNOWN_FIELD", "context has no field 'tool'"),
    ("context", {3: 1.0}, "UNKNOWN_FIELD", "a field name of the context is not a string"),
    ("context", {"x" * 10**5: NAN}, "UNKNOWN_FIELD", "context has no field 'xxx"),
    ("context", {"temp": "1"}, "WRONG_TYPE", "context.temp is a string, needs a number"),
    ("context", {"temp": True}, "WRONG_TYPE", "context.temp is a bool, needs a number"),
    ("context", {"temp": [1.0]}, "WRONG_TYPE", "context.temp is a list, needs a number"),
    ("context", {"temp": {}}, "WRONG_TYPE", "context.temp is a mapping, needs a number"),
    ("context", {"temp": b"1"}, "WRONG_TYPE", "context.temp is a bytes, needs a number"),
    ("context", {"temp": 2**53 + 1}, "WRONG_TYPE", "is an integer that no double equals"),
    ("context", {"temp": NAN}, "NOT_FINITE", "context.temp is nan, needs a finite number"),
    ("context", {"temp": -INF}, "NOT_FINITE", "context.temp is -inf"),
    ("context", {"temp": 10**400}, "NOT_FINITE", "context.temp is too large for a double"),
    ("context", {"phi": 1.0}, "WRONG_TYPE", "context.phi is a number, needs a list of numbers"),
    ("context", {"phi": "abc"}, "WRONG_TYPE", "context.phi is a string, needs a list"),
    ("context", {"phi": [1.0, 2.0]}, "WRONG_TYPE", "context.phi has 2 elements, needs 3"),
    ("context", {"phi": []}, "WRONG_TYPE", "context.phi has 0 elements, needs 3"),
    ("context", {"phi": [1.0, True, 2.0]}, "WRONG_TYPE", "context.phi [1] is a bool, needs a number"),
    ("context", {"phi": [1.0, None, 2.0]}, "WRONG_TYPE", "context.phi [1] is a NoneType"),
    ("context", {"phi": [1.0, [[[]]], 2.0]}, "WRONG_TYPE", "context.phi [1] is a list, needs a number"),
    ("context", {"phi": [1.0, NAN, 2.0]}, "NOT_FINITE", "context.phi [1] is nan"),
    ("context", {"phi": [1, INF, 2]}, "NOT_FINITE", "context.phi [1] is inf"),
    ("context", {"phi": [1.0] * (MAX_LIST_LENGTH + 1)}, "INPUT_TOO_LARGE", "has 1025 elements, at most 1024"),
    ("context", {f"f{i}": 1 for i in range(MAX_FIELDS + 1)}, "INPUT_TOO_LARGE", "the context has more than 1000"),
    ("context", [("temp", 1.0)], "WRONG_TYPE", "the context must be a mapping of fields"),
    ("action", None, "WRONG_TYPE", "the action must be a mapping of fields"),
    ("action", {"tool": 1.0}, "WRONG_TYPE", "action.tool is a number, needs a string"),
    ("action", {"tool": NAN}, "NOT_FINITE", "action.tool is nan, needs a string"),
    ("action", {"tool": "x" * (MAX_STRING_LENGTH + 1)}, "INPUT_TOO_LARGE", "has 10001 characters, at most 10000"),
    ("action", {"tool": "ls\0rm"}, "WRONG_TYPE", "action.tool holds a NUL character"),
    ("action", {"tool": "a\ud800"}, "WRONG_TYPE", "action.tool holds an unpaired surrogate"),
    ("action", {"count": 1.5}, "WRONG_TYPE", "action.count is 1.5, needs an integer"),
    ("action", {"count": True}, "WRONG_TYPE", "action.count is a bool"),
    ("action", {"count": NAN}, "NOT_FINITE", "action.count is nan"),
    ("action", {"count": 1e300}, "WRONG_TYPE", "action.count is outside the range of 64-bit integers"),
    ("action", {"count": 2**63}, "WRONG_TYPE", "action.count is outside the range"),
    ("action", {"dry": 1.0}, "WRONG_TYPE", "action.dry is a number, needs a bool"),
    ("action", {"dry": "true"}, "WRONG_TYPE", "action.dry is a string, needs a bool"),
    ("action", {"dry": INF}, "NOT_FINITE", "action.dry is inf, needs a bool"),
]


@pytest.mark.parametrize(("owner", "values", "reason", "message"), BAD, ids=[f"{r}: {m[:30]}" for _, _, r, m in BAD])
def test_bad_values(policy, owner, values, reason, message):
    given_inputs = {"context": {}, "action": {}, owner: values}
    with pytest.raises(InvalidInput) as caught:
        policy("logistic").inputs(given_inputs["context"], given_inputs["action"])
    assert caught.value.reason == reason == ReasonCode(reason).value
    assert message in str(caught.value)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize(
    ("name", "outcome", "value"),
    [
        ("beta", True, 1.0),
        ("beta", {"bad": False}, 0.0),
        ("lattice", 4, 4.0),
        ("lattice", {"t": -2.5}, -2.5),
    ],
)
def test_outcomes(policy, name, outcome, value):
    assert policy(name).outcome_value(outcome) == value
    assert type(policy(name).outcome_value(outcome)) is float


@pytest.mark.parametrize(
    ("name", "outcome", "reason"),
    [
        ("beta", 1.0, "WRONG_TYPE"),
        ("beta", "true", "WRONG_TYPE"),
        ("beta", None, "WRONG_TYPE"),
        ("beta", {}, "WRONG_TYPE"),
        ("beta", {"bad": None}, "WRONG_TYPE"),
        ("beta", {"bad": {"bad": True}}, "WRONG_TYPE"),
        ("beta", {"bad": True, "good": True}, "UNKNOWN_FIELD"),
        ("beta", NAN, "NOT_FINITE"),
        ("lattice", True, "WRONG_TYPE"),
        ("lattice", [1.0], "WRONG_TYPE"),
        ("lattice", {"bad": 1.0}, "UNKNOWN_FIELD"),
        ("lattice", NAN, "NOT_FINITE"),
        ("lattice", {"t": INF}, "NOT_FINITE"),
        ("lattice", 10**400, "NOT_FINITE"),
    ],
)
def test_bad_outcomes(policy, name, outcome, reason):
    with pytest.raises(InvalidInput) as caught:
        policy(name).outcome_value(outcome)
    assert caught.value.reason == reason


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)
contexts = st.dictionaries(st.sampled_from(["temp", "phi", "tool", "count", "dry", "z"]), json_values, max_size=5)


@pytest.fixture(scope="module")
def logistic(documents):
    return parse_policy(documents["logistic"])


@settings(derandomize=True, deadline=None, max_examples=200)
@given(context=contexts, action=contexts, outcome=json_values)
def test_random_inputs_raise_invalid_input_only(logistic, context, action, outcome):
    with contextlib.suppress(InvalidInput):
        inputs = logistic.inputs(context, action)
        logistic.match_rule(inputs)
        values = logistic.features(inputs)
        assert all(map(math.isfinite, values.numbers))
        assert len(values.numbers) == 1
    with contextlib.suppress(InvalidInput):
        assert logistic.outcome_value(outcome) in (0.0, 1.0)
