"""What an approval binds."""

from __future__ import annotations

import hashlib
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from guardrail.errors import InvalidInput
from guardrail.server.binding import binding


def test_the_binding_is_that_of_the_canonical_json():
    text = '{"action":{"a":1},"context":{},"policy":"p","policy_revision":"r","world":"w"}'
    assert binding("p", "r", "w", {}, {"a": 1}) == hashlib.sha256(text.encode()).hexdigest()


VALUES = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)
OBJECTS = st.dictionaries(st.text(max_size=3), VALUES, max_size=3)
ASKED = st.tuples(st.sampled_from("pq"), st.sampled_from("rs"), st.sampled_from("vw"), OBJECTS, OBJECTS)


@settings(derandomize=True, deadline=None, max_examples=200)
@given(ASKED, ASKED)
def test_what_differs_in_anything_has_another_binding(one, other):
    # Compared as text: 1.0 and True are equal to Python and not the same question.
    assert (binding(*one) == binding(*other)) == (repr(_sorted(one)) == repr(_sorted(other)))


def _sorted(value):
    if isinstance(value, dict):
        return sorted((key, _sorted(item)) for key, item in value.items()), "object"
    if isinstance(value, list | tuple):
        return [_sorted(item) for item in value]
    return value + 0.0 if isinstance(value, float) else value  # -0.0 is 0 to RFC 8785


def test_the_golden_case_of_rfc_8785():
    """Numbers and key order of the RFC's appendix: keys sort by UTF-16 code units, numbers are ECMAScript's."""
    context = {"\u20ac": 333333333.33333329, "\r": 1e30, "\ufb33": 4.50, "\U0001f600": 2e-3, "1": 1e-27, "\u00f6": -0.0}
    text = '{"\\r":1e+30,"1":1e-27,"\u00f6":0,"\u20ac":333333333.3333333,"\U0001f600":0.002,"\ufb33":4.5}'
    whole = f'{{"action":{{}},"context":{text},"policy":"p","policy_revision":"r","world":"w"}}'
    assert binding("p", "r", "w", context, {}) == hashlib.sha256(whole.encode()).hexdigest()


@pytest.mark.parametrize("value", [math.nan, math.inf, "\ud800"])
def test_what_has_no_canonical_json_has_no_binding(value):
    with pytest.raises(InvalidInput):
        binding("p", "r", "w", {"x": value}, {})
