"""Rules and features of a compiled policy: first match wins, and doubt never passes."""

import dataclasses

import pytest

from guardrail.errors import InvalidInput
from guardrail.policy import Policy
from guardrail.policy.schema import MAX_FIELDS

FEATURE = "temp: context.temp\n"
RULES = """  - when: '!has(context.temp)'
    decide: reject
    reason: no temperature
"""
CONTEXT = {"temp": 1.0, "phi": [1.0, 2.0, 3.0]}
ACTION = {"tool": "x", "count": 2, "dry": False}


def rules(*conditions, decide="reject"):
    body = "".join(f"  - when: {w!r}\n    decide: {decide}\n    reason: rule {i}\n" for i, w in enumerate(conditions))
    return (RULES, body)


def matched(policy, context, action=ACTION):
    found = policy.match_rule(policy.inputs(context, action))
    return None if found is None else found.index


def refused(call, *arguments):
    with pytest.raises(InvalidInput) as caught:
        call(*arguments)
    return caught.value.reason, str(caught.value)


def test_a_policy_is_frozen(policy, documents):
    compiled = policy("logistic")
    with pytest.raises(dataclasses.FrozenInstanceError):
        compiled.revision = "x"
    assert (compiled.name, compiled.description, compiled.path) == ("p", "d", "p.yaml")
    assert (compiled.outcome_name, compiled.outcome_type) == ("bad", "bool")
    assert compiled.document == documents["logistic"]


def test_the_first_match_wins(policy):
    compiled = policy("logistic", rules("context.temp > 5.0", "action.dry", "context.temp > 3.0"))
    assert matched(compiled, {"temp": 1.0}) is None
    assert matched(compiled, {"temp": 4.0}) == 2
    assert matched(compiled, {"temp": 6.0}) == 0
    assert matched(compiled, {"temp": 4.0}, {"dry": True}) == 1
    found = compiled.match_rule(compiled.inputs({"temp": 6.0}, {"dry": True}))
    assert (found.decide, found.reason, found.rule.when) == ("reject", "rule 0", "context.temp > 5.0")


def test_an_error_in_an_earlier_rule_rejects_though_a_later_one_matches(policy):
    compiled = policy("logistic", rules("context.temp > 5.0", "action.dry"))
    reason, message = refused(matched, compiled, {}, {"dry": True})
    assert reason == "RULE_ERROR"
    assert message == "rule 1 (rule 0) needs context.temp, which is absent"


def test_an_error_in_a_later_rule_does_not_hide_an_earlier_match(policy):
    compiled = policy("logistic", rules("action.dry", "context.temp > 5.0"))
    assert matched(compiled, {}, {"dry": True}) == 0
    assert refused(matched, compiled, {}, {"dry": False})[0] == "RULE_ERROR"


def test_an_error_that_is_not_an_absence_is_told(policy):
    compiled = policy("logistic", rules("10 / action.count > 3"))
    assert matched(compiled, {}, {"count": 2}) == 0
    reason, message = refused(matched, compiled, {}, {"count": 0})
    assert (reason, message) == ("RULE_ERROR", "rule 1 (rule 0) cannot be evaluated: divide by zero")
    compiled = policy("logistic", rules("{'a': true}[action.tool]"))
    assert refused(matched, compiled, {}, {"tool": "b"})[0] == "RULE_ERROR"


def test_has_guards_an_absent_field(policy):
    compiled = policy("logistic", rules("has(context.temp) && context.temp > 5.0", "!has(context.phi)"))
    assert matched(compiled, {"phi": [1, 2, 3]}) is None
    assert matched(compiled, {"temp": 6.0}) == 0
    assert matched(compiled, {"temp": 1.0}) == 1
    assert matched(compiled, {"temp": 1.0, "phi": None}) == 1


def test_strings_and_loops_in_rules(policy):
    compiled = policy(
        "logistic",
        rules(
            '["rm ", "dd "].exists(word, action.tool.startsWith(word))',
            'action.tool.matches("^a+b$")',
            "context.phi.all(x, x > 0.0)",
        ),
    )
    assert matched(compiled, {"phi": [0, 1, 2]}, {"tool": "dd if"}) == 0
    assert matched(compiled, {"phi": [0, 1, 2]}, {"tool": "aab"}) == 1
    assert matched(compiled, {"phi": [1, 1, 2]}, {"tool": "ls"}) == 2
    assert matched(compiled, {"phi": [0, 1, 2]}, {"tool": "ls"}) is None


def test_many_rules_and_deep_rules_keep_the_semantics(policy):
    many = policy("logistic", rules(*[f"context.temp == {i}.0" for i in range(200)]))
    assert many.programs.any_rule is not None
    assert [matched(many, {"temp": t}) for t in (-1, 0, 57, 199)] == [None, 0, 57, 199]
    deep = "(" * 32 + "context.temp == 1.0" + ")" * 32
    alone = policy("logistic", rules(deep, "context.temp == 2.0"))
    assert alone.programs.any_rule is None
    assert [matched(alone, {"temp": t}) for t in (1, 2, 3)] == [0, 1, None]


def test_a_comment_in_a_rule_swallows_nothing(policy):
    compiled = policy("logistic", rules("context.temp > 5.0 // hot", "context.temp > 3.0 // warm"))
    assert compiled.programs.any_rule is not None
    assert [matched(compiled, {"temp": t}) for t in (6, 4, 1)] == [0, 1, None]


def test_features_are_flattened_in_the_order_of_names(policy):
    compiled = policy(
        "linear",
        ("{phi: {type: list, length: 3}}", "{phi: {type: list, length: 3}, b: bool, n: integer, x: number}"),
        (
            "{phi: context.phi}",
            "{z: context.b, phi: context.phi, n: context.n, "
            "mix: '[context.x, 1.0] + context.phi.map(v, v * 2.0)', flags: '[context.b, !context.b]', one: '1.0'}",
        ),
    )
    assert compiled.feature_names == (
        *("flags[0]", "flags[1]", "mix[0]", "mix[1]", "mix[2]", "mix[3]", "mix[4]"),
        *("n", "one", "phi[0]", "phi[1]", "phi[2]", "z"),
    )
    values = compiled.features(compiled.inputs({"phi": [1, 2, 3], "b": True, "n": 7, "x": 0.5}, {}))
    assert values.numbers == (1, 0, 0.5, 1, 2, 4, 6, 7, 1, 1, 2, 3, 1)
    assert {type(v) for v in values.numbers} == {float}
    assert values.category is None


def test_conditional_features_keep_their_length(policy):
    compiled = policy("linear", ("{phi: context.phi}", "{phi: 'context.phi[0] > 0.0 ? context.phi : [0.0, 0.0, 0.0]'}"))
    assert compiled.features(compiled.inputs({"phi": [1, 2, 3]}, {})).numbers == (1, 2, 3)
    assert compiled.features(compiled.inputs({"phi": [-1, 2, 3]}, {})).numbers == (0, 0, 0)


@pytest.mark.parametrize("value", ["x", "é"])
def test_a_string_category(policy, value):
    compiled = policy("beta", ("[x, y]", "[x, y, é]"))
    assert compiled.features(compiled.inputs({}, {"kind": value})).category == value


def test_an_integer_category(policy):
    compiled = policy("beta", ("kind: string", "kind: integer"), ("[x, y]", "{count: 9}"))
    category = compiled.features(compiled.inputs({}, {"kind": 4.0})).category
    assert category == 4
    assert type(category) is int


def test_a_string_that_looks_like_an_error_is_a_string(policy):
    compiled = policy("beta")
    text = 'NOT_FOUND: Key not found in map : "kind"'
    assert compiled.features(compiled.inputs({}, {"kind": text})).category == text


def test_an_absent_feature_is_never_defaulted(policy):
    compiled = policy("logistic")
    reason, message = refused(compiled.features, compiled.inputs({"phi": [1, 2, 3]}, ACTION))
    assert (reason, message) == ("FEATURE_MISSING", "feature 'temp' needs context.temp, which is absent")
    compiled = policy("beta")
    reason, message = refused(compiled.features, compiled.inputs({}, {}))
    assert (reason, message) == ("FEATURE_MISSING", "the category needs action.kind, which is absent")


def test_an_absent_required_field_is_missing_though_no_feature_reads_it(policy):
    compiled = policy("logistic")
    assert compiled.features(compiled.inputs(CONTEXT, ACTION)).numbers == (1.0,)
    reason, message = refused(compiled.features, compiled.inputs({"temp": 1.0}, ACTION))
    assert (reason, message) == ("FEATURE_MISSING", "context.phi is absent and not declared optional")


def test_a_feature_that_is_not_finite(policy):
    compiled = policy("logistic", (FEATURE, "temp: 1.0 / context.temp\n"))
    reason, message = refused(compiled.features, compiled.inputs({**CONTEXT, "temp": 0}, ACTION))
    assert (reason, message) == ("NOT_FINITE", "feature 'temp' is not a finite number")
    compiled = policy("logistic", (FEATURE, "temp: context.temp * context.temp\n"))
    assert refused(compiled.features, compiled.inputs({**CONTEXT, "temp": 1e200}, ACTION))[0] == "NOT_FINITE"
    compiled = policy("linear", ("{phi: context.phi}", "{phi: 'context.phi.map(v, 0.0 / v)'}"))
    assert "phi[1]" in refused(compiled.features, compiled.inputs({"phi": [1, 0, 2]}, {}))[1]


def test_a_feature_that_cannot_be_evaluated(policy):
    compiled = policy("logistic", (FEATURE, "temp: 10 / action.count\n"))
    reason, message = refused(compiled.features, compiled.inputs(CONTEXT, {**ACTION, "count": 0}))
    assert (reason, message) == ("FEATURE_ERROR", "feature 'temp' cannot be evaluated: divide by zero")


def test_deep_features_are_evaluated_one_by_one(policy):
    deep = "(" * 31 + "context.temp" + ")" * 31
    compiled = policy("logistic", (FEATURE, f"temp: '{deep}'\n"))
    assert compiled.programs.feature_list is None
    assert compiled.features(compiled.inputs(CONTEXT, ACTION)).numbers == (1.0,)
    assert refused(compiled.features, compiled.inputs({"phi": [1, 2, 3]}, ACTION))[0] == "FEATURE_MISSING"


def test_fields_named_like_the_machinery(policy):
    fields = "{__name__: number, value: number, fooBar: number, foo_bar: number, _foo_bar: number, true: number}"
    compiled = policy(
        "linear",
        ("{phi: {type: list, length: 3}}", fields.replace("true", "'true'")),
        ("{phi: context.phi}", "{a: context.fooBar + context.foo_bar * 10.0 + context._foo_bar * 100.0}"),
    )
    values = {"fooBar": 1, "foo_bar": 2, "_foo_bar": 3, "__name__": 0, "value": 0, "true": 0}
    assert compiled.features(compiled.inputs(values, {})).numbers == (321.0,)


def test_no_fields_at_all(policy):
    compiled = policy("normal-table")
    assert isinstance(compiled, Policy)
    values = compiled.features(compiled.inputs({}, {}))
    assert (values.numbers, values.category) == ((), None)
    assert compiled.match_rule(compiled.inputs({}, {})) is None


def test_as_many_fields_as_are_allowed(policy):
    names = ", ".join(f"f{i}: number" for i in range(MAX_FIELDS))
    declared = ("{phi: {type: list, length: 3}}", f"{{{names}}}")
    compiled = policy("linear", declared, ("{phi: context.phi}", f"{{a: context.f{MAX_FIELDS - 1}}}"))
    assert compiled.features(compiled.inputs({f"f{i}": i for i in range(MAX_FIELDS)}, {})).numbers == (MAX_FIELDS - 1,)


@pytest.mark.parametrize(
    ("predicate", "harmful", "harmless"),
    [
        # The bound's event forgets ends of intervals, which have probability zero; a reported number may be one.
        ("outcome.t > 3.0", [3.5], [3.0, -1.0]),
        ("outcome.t >= 3.0", [3.0], [2.9]),
        ("outcome.t > 1.0 && outcome.t < 2.0", [1.5, {"t": 1.5}], [1.0, 2.0]),
        ("outcome.t < 1.0 || outcome.t > 2.0", [0.5], [1.0, 2.0, 1.5]),
    ],
)
def test_harm_of_a_number_is_what_the_predicate_says(policy, predicate, harmful, harmless):
    compiled = policy("normal-table", ("outcome.t > 3.0", predicate))
    assert [compiled.is_harm(outcome) for outcome in harmful] == [True] * len(harmful)
    assert [compiled.is_harm(outcome) for outcome in harmless] == [False] * len(harmless)


def test_harm_of_a_bool(policy):
    assert policy("table").is_harm({"bad": True}) is True
    assert policy("table", ("harm: outcome.bad", "harm: '!outcome.bad'")).is_harm(True) is False
    assert refused(policy("table").is_harm, "yes")[0] == "WRONG_TYPE"
    assert refused(policy("table").is_harm, {"worse": True})[0] == "UNKNOWN_FIELD"
    assert refused(policy("normal-table").is_harm, float("nan"))[0] == "NOT_FINITE"
