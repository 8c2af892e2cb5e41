"""The syntax tree, the cost and the evaluation of expressions."""

import pytest

from guardrail.policy.analysis import MAX_POLICY_COST, cost, fields_read, fields_tested, list_length
from guardrail.policy.expressions import CheckedExpression, Environment, EvaluationError, suggest
from guardrail.policy.schema import FieldSpec

CONTEXT = {
    "x": FieldSpec(type="number"),
    "n": FieldSpec(type="integer"),
    "b": FieldSpec(type="bool"),
    "s": FieldSpec(type="string"),
    "t": FieldSpec(type="string"),
    "phi": FieldSpec(type="list", length=10),
    "wide": FieldSpec(type="list", length=1024),
}
VALUES = {"x": 1.5, "n": 3, "b": True, "s": "a", "t": "b", "phi": [1.0] * 10}
INPUTS = {"context": CONTEXT, "action": {"x": FieldSpec(type="number")}}


@pytest.fixture(scope="module")
def environment():
    return Environment(INPUTS)


@pytest.fixture(scope="module")
def check(environment):
    def checked(text):
        found = environment.check(text)
        assert isinstance(found, CheckedExpression), found
        return found

    return checked


@pytest.mark.parametrize(
    ("text", "type_", "value"),
    [
        ("context.x", "double", 1.5),
        ("context.n", "int", 3),
        ("context.b", "bool", True),
        ("context.s", "string", "a"),
        ("context.phi", "list(double)", [1.0] * 10),
        ("context.phi[0] + 1.0", "double", 2.0),
        ("double(context.n) / 2.0", "double", 1.5),
        ("context.n / 2", "int", 1),
        ("context.b ? 1.0 : 0.0", "double", 1.0),
        ("has(context.x)", "bool", True),
        ("has(action.x)", "bool", False),
        ("{'a': 2.0, 'b': 3.0}[context.s]", "double", 2.0),
        ("context.s in ['a', 'b']", "bool", True),
        ("context.s + context.t", "string", "ab"),
        ("context.phi.map(v, v > 0.5)", "list(bool)", [True] * 10),
        ("action.x == 1.0 || context.b", "bool", True),
    ],
)
def test_types_and_values(check, text, type_, value):
    checked = check(text)
    assert checked.tree.type == type_
    assert checked.program.evaluate({"context": VALUES, "action": {}}) == value


@pytest.mark.parametrize(
    "text", ["action.x", "context.n / 0", "context.phi[10]", "{'z': 1}[context.s]", "int(context.s)"]
)
def test_what_has_no_value_is_an_error_and_not_a_string(check, text):
    with pytest.raises(EvaluationError):
        check(text).program.evaluate({"context": VALUES, "action": {}})


def test_values_that_cel_cannot_hold_are_errors(check):
    for bad in ("\ud800", 2**70, object()):
        with pytest.raises(EvaluationError):
            check("context.x").program.evaluate({"context": {"x": bad}, "action": {}})


def test_fields(check):
    tree = check("has(context.x) && context.n > 1 && context.phi.exists(v, v > context.x) && !has(action.x)").tree
    assert fields_read(tree, INPUTS) == {("context", "n"), ("context", "phi"), ("context", "x")}
    assert fields_tested(tree, INPUTS) == {("context", "x"), ("action", "x")}


@pytest.mark.parametrize(
    ("text", "length"),
    [
        ("context.phi", 10),
        ("[context.x, 1.0]", 2),
        ("context.phi + [1.0]", 11),
        ("context.phi.map(v, v * 2.0)", 10),
        ("context.b ? context.phi : context.phi.map(v, 0.0)", 10),
        ("context.b ? context.phi : [1.0]", None),
        ("context.phi.filter(v, v > 0.0)", None),
        ("context.phi.map(v, v > 0.0, v)", None),
        ("context.phi.filter(v, v > 0.0) + [1.0]", None),
    ],
)
def test_list_lengths(check, text, length):
    assert list_length(check(text).tree, INPUTS) == length


def test_cost_grows_with_what_grows(check):
    def steps(text):
        return cost(check(text).tree, INPUTS)

    assert steps("context.x > 1.0") < 10
    assert steps("context.phi.map(v, v)") < steps("context.wide.map(v, v)") < MAX_POLICY_COST
    assert steps("context.s.matches('a')") > 1_000
    assert steps("['a', 'b'].exists(w, context.s.contains(w))") < MAX_POLICY_COST
    assert steps("context.wide.exists(v, context.s.contains(string(v)))") > MAX_POLICY_COST
    assert steps("context.wide.exists(v, context.s.matches('a+b'))") > MAX_POLICY_COST
    assert steps("context.wide.map(v, context.s + context.s).size()") > MAX_POLICY_COST


def test_suggestions():
    assert suggest("tmp", ["temp", "x"]) == "did you mean 'temp'?"
    assert suggest("q", ["b", "a"]) == "known are a, b"
    assert suggest("q", []) == "none is known here"
    assert suggest("q", [f"a{i:02}" for i in range(30)]).endswith("a19, ...")
