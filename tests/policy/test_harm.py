"""Every way of writing a supported harm event is understood, every other predicate is refused."""

import math
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from guardrail.domain import BooleanHarm, IntervalHarm
from guardrail.errors import PolicyError
from guardrail.policy import parse_policy

INF = math.inf
BOOLEAN = [
    ("outcome.bad", True),
    ("!outcome.bad", False),
    ("!!outcome.bad", True),
    ("outcome.bad == true", True),
    ("true == outcome.bad", True),
    ("outcome.bad == false", False),
    ("outcome.bad != true", False),
    ("false != outcome.bad", True),
    ("!(outcome.bad == false)", True),
    ("(!outcome.bad) == false", True),
    ("outcome.bad && outcome.bad", True),
    ("outcome.bad || !(!outcome.bad)", True),
]
NUMBER = [
    ("outcome.t > 4.0", (4, INF, True)),
    ("outcome.t >= 4.0", (4, INF, True)),
    ("4.0 < outcome.t", (4, INF, True)),
    ("4.0 <= outcome.t", (4, INF, True)),
    ("!(outcome.t <= 4.0)", (4, INF, True)),
    ("outcome.t < -4.0", (-INF, -4, True)),
    ("-4.0 >= outcome.t", (-INF, -4, True)),
    ("outcome.t < -(4.0)", (-INF, -4, True)),
    ("outcome.t > 1.0 && outcome.t < 2.0", (1, 2, True)),
    ("outcome.t < 2.0 && 1.0 < outcome.t", (1, 2, True)),
    ("!(outcome.t < 1.0 || outcome.t > 2.0)", (1, 2, True)),
    ("outcome.t < 1.0 || outcome.t > 2.0", (1, 2, False)),
    ("outcome.t > 2.0 || outcome.t < 1.0", (1, 2, False)),
    ("!(outcome.t >= 1.0 && outcome.t <= 2.0)", (1, 2, False)),
    ("outcome.t > 1.0 || outcome.t > 2.0", (1, INF, True)),
    ("outcome.t > 1.0 && outcome.t > 2.0", (2, INF, True)),
    ("(outcome.t > 1.0 && outcome.t < 2.0) || (outcome.t >= 2.0 && outcome.t < 3.0)", (1, 3, True)),
    ("outcome.t > 1e308", (1e308, INF, True)),
]
BAD_NUMBER = [
    ("outcome.t > 4", "8:17: '>' does not take (double, int); numbers are doubles: write 1.0"),
    ("outcome.t", "8:14: not a supported harm event; supported are outcome.t > 1.0, "),
    ("outcome.t == 4.0", "8:17: a number equals a given one with probability zero"),
    ("outcome.t != 4.0", "8:17: a number equals"),
    ("outcome.t > 1.0 || outcome.t < 2.0", "8:23: harm always happens under this predicate"),
    ("outcome.t > 2.0 && outcome.t < 1.0", "8:23: harm never happens under this predicate"),
    ("outcome.t > 2.0 && outcome.t <= 2.0", "8:23: harm never happens"),
    ("outcome.t > 1.0 && !(outcome.t > 1.0)", "8:23: harm never happens"),
    ("true", "8:7: harm is true; needs a string"),
    ("'true'", "8:8: not a supported harm event"),
    ("1.0 < 2.0", "8:11: not a supported harm event"),
    ("outcome.t > 1.0 && true", "8:26: not a supported harm event"),
    ("outcome.t + 1.0 > 4.0", "8:23: not a supported harm event"),
    ("outcome.t * outcome.t > 4.0", "8:29: not a supported harm event"),
    ("outcome.t > outcome.t", "8:17: not a supported harm event"),
    ("outcome.t > 1.0 + 1.0", "8:17: not a supported harm event"),
    ("outcome.t > 1.0 / 0.0", "8:17: not a supported harm event"),
    ("'outcome.t > 1.0 ? true : false'", "8:24: not a supported harm event"),
    ("has(outcome.t)", "8:10: not a supported harm event"),
    ("outcome.t in [1.0]", "8:17: not a supported harm event"),
    ("outcome.t > 1e999", "8:19: the number is too large for a double"),
    (
        "(outcome.t > 1.0 && outcome.t < 2.0) || (outcome.t > 3.0 && outcome.t < 4.0)",
        "8:44: harm is 2 separate intervals",
    ),
    ("outcome.t < 1.0 || (outcome.t > 2.0 && outcome.t < 3.0) || outcome.t > 4.0", "8:63: harm is 3 separate"),
    ("outcome.u > 1.0", "8:14: outcome declares no field 'u'"),
]
BAD_BOOLEAN = [
    ("outcome.bad || !outcome.bad", "11:20: harm always happens under this predicate; it must depend on the outcome"),
    ("outcome.bad && !outcome.bad", "11:20: harm never happens under this predicate"),
    ("true", "11:8: not a supported harm event; supported are outcome.bad, !outcome.bad, outcome.bad == true"),
    ("outcome.bad || true", "11:23: not a supported harm event"),
    ("outcome.bad == outcome.bad", "11:20: not a supported harm event"),
    ("outcome.bad ? true : false", "11:20: not a supported harm event"),
    ("outcome.bad > 1.0", "11:20: '>' does not take (bool, double)"),
    ("[outcome.bad].all(x, x)", "11:25: not a supported harm event"),
]


def quoted(expression):
    return "harm: '" + expression + "'"


@pytest.mark.parametrize(("expression", "harmful"), BOOLEAN)
def test_boolean_events(policy, expression, harmful):
    assert policy("beta", ("harm: outcome.bad", quoted(expression))).harm == BooleanHarm(harmful)


@pytest.mark.parametrize(("expression", "expected"), NUMBER)
def test_interval_events(policy, expression, expected):
    lower, upper, inside = expected
    assert policy("lattice", ("harm: outcome.t > 3.0", quoted(expression))).harm == IntervalHarm(lower, upper, inside)


@pytest.mark.parametrize(("expression", "start"), BAD_NUMBER)
def test_refused_predicates_over_a_number(problems, expression, start):
    found = problems("lattice", ("harm: outcome.t > 3.0", f"harm: {expression}"))
    assert len(found) == 1
    assert found[0].startswith(f"p.yaml:{start}"), found


@pytest.mark.parametrize(("expression", "start"), BAD_BOOLEAN)
def test_refused_predicates_over_a_bool(problems, expression, start):
    found = problems("beta", ("harm: outcome.bad", quoted(expression)))
    assert len(found) == 1
    assert found[0].startswith(f"p.yaml:{start}"), found


comparisons = st.tuples(st.sampled_from([">", ">=", "<", "<="]), st.integers(-3, 3), st.booleans()).map(
    lambda c: f"outcome.t {c[0]} {c[1]}.0" if c[2] else f"{c[1]}.0 {c[0]} outcome.t"
)
predicates = st.recursive(
    comparisons,
    lambda inner: (
        st.tuples(inner, st.sampled_from(["&&", "||"]), inner).map(lambda t: f"({t[0]}) {t[1]} ({t[2]})")
        | inner.map(lambda p: f"!({p})")
    ),
    max_leaves=4,
)


@settings(derandomize=True, deadline=None, max_examples=100)
@given(predicates)
def test_the_event_is_the_predicate(documents, expression):
    """Where a predicate is accepted, its event agrees with the predicate itself at points between the ends."""
    text = documents["lattice"].replace("harm: outcome.t > 3.0", quoted(expression))
    python = expression.replace("outcome.t", "t").replace("&&", "and").replace("||", "or").replace("!(", "not (")
    points = [x + 0.5 for x in range(-5, 5)]
    held = [bool(eval(f"({python})", {"t": t})) for t in points]
    changes = sum(a != b for a, b in pairwise(held))
    if changes == 0 or changes > 2:
        with pytest.raises(PolicyError, match=r"harm (always|never) happens|separate intervals"):
            parse_policy(text)
        return
    harm = parse_policy(text).harm
    assert held == [(harm.lower < t < harm.upper) == harm.inside for t in points]
