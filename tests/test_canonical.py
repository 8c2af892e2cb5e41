import enum
import hashlib
import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from guardrail.canonical import MAX_DEPTH, canonical_json, digest, plain
from guardrail.errors import InvalidInput

SCALARS = st.none() | st.booleans() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=20)


class Colour(enum.Enum):
    RED = "red"


class Gear(str, enum.Enum):  # noqa: UP042  (its str() is not its text)
    FIRST = "first"


def shuffled(value):
    """The same content, its keys the other way round."""
    if isinstance(value, dict):
        return {key: shuffled(value[key]) for key in reversed(value)}
    return [shuffled(item) for item in value] if isinstance(value, list) else value


@given(VALUES)
@settings(derandomize=True, deadline=None)
def test_text_reads_back_as_the_value_whatever_the_order_of_keys(value):
    text = canonical_json(value)
    assert json.loads(text) == value
    assert canonical_json(shuffled(value)) == text
    assert canonical_json(json.loads(text)) == text


def test_the_text_is_pinned():
    value = {"b": [1, 0.1, True, None], "a": {"y": "é", "x": -0.0}, "c": 1e300}
    assert canonical_json(value) == '{"a":{"x":-0.0,"y":"\\u00e9"},"b":[1.0,0.1,true,null],"c":1e+300}'


@given(st.integers(-(2**53), 2**53))
@settings(derandomize=True, deadline=None)
def test_an_integer_and_its_double_have_one_text(number):
    assert canonical_json(number) == canonical_json(float(number))


@pytest.mark.parametrize("number", [2**53 + 1, -(2**53) - 1, 10**400])
def test_an_integer_that_no_double_equals_is_refused(number):
    with pytest.raises(InvalidInput, match=r"value\.n\[1\]: no double") as caught:
        canonical_json({"n": [0, number]})
    assert caught.value.reason == "WRONG_TYPE"


def test_booleans_are_not_numbers():
    assert canonical_json([True, 1, False, 0]) == "[true,1.0,false,0.0]"


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf, np.float32("nan")])
def test_a_number_that_is_not_finite_is_refused_unless_asked_for(number):
    with pytest.raises(InvalidInput) as caught:
        canonical_json({"x": [number]})
    assert caught.value.reason == "NOT_FINITE"
    back = json.loads(canonical_json({"x": [number]}, allow_nonfinite=True))["x"][0]
    assert back == number or (math.isnan(back) and math.isnan(number))


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (np.float32(0.5), 0.5),
        (np.float64(0.5), 0.5),
        (np.int64(3), 3.0),
        (np.bool_(True), True),
        (np.str_("a"), "a"),
        (Gear.FIRST, "first"),
        ((1, 2), [1.0, 2.0]),
        (np.array(2.0), 2.0),
    ],
)
def test_scalars_become_plain(value, expected):
    found = plain(value)
    assert found == expected
    assert type(found) is type(expected)


@pytest.mark.parametrize("value", [object(), {1}, b"x", 1j, Colour.RED, np.zeros(3), np.zeros(1), iter([1])])
def test_other_types_are_refused_by_their_place(value):
    with pytest.raises(InvalidInput, match=r"^action\.a\[1\]: ") as caught:
        plain({"a": [0, value]}, "action")
    assert caught.value.reason == "WRONG_TYPE"


@pytest.mark.parametrize("value", [{1: "x"}, {None: 1}, {"\ud800": 1}, "\udfff"])
def test_keys_are_text_and_text_is_unicode(value):
    with pytest.raises(InvalidInput):
        plain(value)


def test_nesting_has_a_limit_and_a_cycle_ends():
    def nested(levels):
        return [] if levels == 1 else [nested(levels - 1)]

    assert plain(nested(MAX_DEPTH)) == nested(MAX_DEPTH)
    cycle = []
    cycle.append(cycle)
    for value in (nested(MAX_DEPTH + 1), cycle):
        with pytest.raises(InvalidInput, match=r"\[0\]: nested deeper") as caught:
            plain(value)
        assert caught.value.reason == "INPUT_TOO_LARGE"


def test_plain_is_a_copy():
    inner = [1.0]
    value = {"a": inner}
    copy = plain(value)
    inner.append(2.0)
    assert copy == {"a": [1.0]}


def test_digest_is_sha256():
    assert digest('{"a":1.0}') == hashlib.sha256(b'{"a":1.0}').hexdigest()
