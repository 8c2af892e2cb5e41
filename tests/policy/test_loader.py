"""Every mistake in a policy is told with its position, what is wrong, and what would be right."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from guardrail.errors import PolicyError
from guardrail.policy import load_policy, parse_policy
from guardrail.policy.document import MAX_PROBLEMS
from guardrail.policy.schema_base import MAX_EXPRESSION_LENGTH
from guardrail.policy.yaml_source import MAX_DOCUMENT_BYTES

NAMES = ["beta", "linear", "lattice", "logistic", "normal-table", "table"]
FEATURE = "temp: context.temp"
RULE = "when: '!has(context.temp)'"


@pytest.mark.parametrize("name", NAMES)
def test_the_base_documents_load(policy, name):
    assert policy(name).name == "p"


SHAPE = [
    (
        "bound: ",
        "boud: ",
        ["1:1: field 'bound' is missing; add it", "20:1: unknown field 'boud'; did you mean 'bound'?"],
    ),
    ("name: p", "name: P p", ["2:7: name is 'P p'; needs lower-case letters, digits and hyphens, at most 63"]),
    ("guardrail/v1", "guardrail/v2", ["1:9: schema is 'guardrail/v2'; needs guardrail/v1"]),
    ("description: d", "description: ''", ["3:14: description is ''; must not be empty"]),
    ("description: d", "description:", ["3:1: description is empty; needs a string"]),
    ("logistic", "logistics", ["14:11: unknown family 'bernoulli-logistics'; did you mean 'bernoulli-logistic'?"]),
    ("kind: ratio", "kind: rato", ["20:15: unknown kind 'rato'; did you mean 'ratio'?"]),
    ("kind: ratio, ", "", ["20:8: field 'kind' is missing; add it"]),
    ("delta: 0.05", "delta: .nan", ["20:29: delta is nan; needs a finite number"]),
    ("delta: 0.05", "delta: 1", ["20:29: delta is 1; needs a number less than 1.0"]),
    ("delta: 0.05", "delta: 0.05, alpha: 0.1", ["20:35: unknown field 'alpha'; known are delta, kind, running"]),
    ("running: true", "running: yes", ["20:44: running is 'yes'; needs true or false"]),
    ("type: bool", "type: boolean", ["18:28: unknown type 'boolean'; did you mean 'bool'?"]),
    (
        "type: number",
        "type: numbr",
        ["5:16: type is 'numbr'; needs number, integer, bool, string or list; did you mean"],
    ),
    ("optional: true", "optinal: true", ["5:24: unknown field 'optinal'; did you mean 'optional'?"]),
    ("count: integer", "count: int", ["9:10: count is 'int'; needs number, integer, bool or string"]),
    ("count: integer", "count: list", ["9:10: count is 'list'; needs {type: list, length: N}"]),
    ("type: list, length: 3", "type: list", ["6:8: a list needs a length; write {type: list, length: N}"]),
    ("type: list, length: 3", "type: number, length: 3", ["6:8: a number has no length"]),
    ("length: 3", "length: 2000", ["6:29: length is 2000; needs a number of at most 1024"]),
    ("lower: -5", "lower: '-5'", ["15:22: lower is '-5'; needs a number"]),
    (
        "lower: -5, upper: 5, points: 11",
        "lower: -5, upper: 5, points: 11.0",
        ["15:44: points is 11.0; needs an integer"],
    ),
    ("lower: -5", "lower: -5, lowr: 1", ["15:26: unknown field 'lowr'; did you mean 'lower'?"]),
    ("intercept: {lower: -5, upper: 5, points: 11, sd: 2}", "intercept: 5", ["15:14: intercept is 5; needs a mapping"]),
    ("decide: reject", "decide: accept", ["24:13: decide is 'accept'; needs reject or escalate"]),
    (
        "features:\n",
        "features:\n  1a: '1.0'\n",
        ["12:3: the name '1a' is not allowed; needs letters, digits and under"],
    ),
    ("reason: no temperature", "reason: [a]", ["25:13: reason is a list; needs a string"]),
    ("rules:", "rules: 3\nx:", ["22:8: rules is 3; needs a list", "23:1: unknown field 'x'"]),
    ("rules:", "1: 2\nrules:", ["22:1: the name 1 is not a string; quote it"]),
    (FEATURE, "temp: 5", ["12:9: temp is 5; needs a string"]),
]


@pytest.mark.parametrize(("old", "new", "expected"), SHAPE, ids=[new[:30] for _, new, _ in SHAPE])
def test_wrong_shapes(problems, documents, old, new, expected):
    text = documents["logistic"].replace(old, new, 1)
    assert text != documents["logistic"]
    found = problems(text)
    assert len(found) == len(expected), found
    for problem, start in zip(found, expected, strict=True):
        assert problem.startswith(f"p.yaml:{start}"), found


def test_unions_are_told_apart(problems):
    def of_row(row):
        return problems("table", ("- {name: b, rates: {x: 0.3, y: 0.4}}", row))

    assert of_row("- {name: b, rates: {x: 0.3, y: 4}}") == ["p.yaml:10:36: y is 4; needs a number of at most 1.0"]
    assert of_row("- {name: b, rates: 4}") == ["p.yaml:10:24: rates is 4; needs a number of at most 1.0"]
    assert of_row("- {name: b, rates: [4]}") == ["p.yaml:10:24: rates is a list; needs a mapping or a number"]
    assert of_row("- {name: b, normal: {mean: 4}}") == ["p.yaml:10:25: field 'sd' is missing; add it"]
    assert of_row("- {name: b, normal: {x: {mean: 4}}}") == ["p.yaml:10:29: field 'sd' is missing; add it"]
    assert of_row("- b") == ["p.yaml:10:7: the value is 'b'; needs a mapping"]
    assert problems("beta", ("[x, y]", "x")) == ["p.yaml:8:15: categories is 'x'; needs a list or a mapping"]
    assert problems("beta", ("[x, y]", "{cont: 1}")) == [
        "p.yaml:8:15: field 'count' is missing; add it",
        "p.yaml:8:16: unknown field 'cont'; did you mean 'count'?",
    ]


EXPRESSIONS = [
    (FEATURE, "temp: context.tmp", "12:16: context declares no field 'tmp'; did you mean 'temp'?"),
    (FEATURE, "temp: contxt.temp", "12:15: unknown name 'contxt.temp'; write context.<field> or action.<field>"),
    (FEATURE, "temp: context.temp > 1", "12:22: '>' does not take (double, int); numbers are doubles: write 1.0"),
    (FEATURE, "temp: 'context.temp > 1'", "12:23: '>' does not take (double, int)"),
    (FEATURE, "temp: context.temp +", "12:23: not valid CEL: mismatched input 'end of the expression'"),
    (FEATURE, "temp: foo(context.temp)", "12:12: unknown name 'foo'"),
    (FEATURE, "temp: context", "12:9: 'context' is used as a whole; name one field: context.<field>"),
    (FEATURE, "temp: dyn(context.temp)", "12:12: dyn() is not supported"),
    (FEATURE, "temp: action.tool", "12:9: a feature must be a number, a bool or a list of numbers, this is string"),
    (FEATURE, "temp: '[context.temp, 1]'", "12:9: a feature must be a number"),
    (FEATURE, "temp: 1e999 + context.temp", "12:9: the number is too large for a double"),
    (FEATURE, "temp: context.phi.filter(x, x > 1.0)", "12:9: the list's length is not known in advance"),
    (FEATURE, "temp: '[]'", "12:9: "),
    (FEATURE, "temp: guardrail_policy.context{temp:1.0}.temp", "12:9: messages cannot be built here"),
    (FEATURE, "temp: size(context.phi.map(x, context.phi.exists(y, y == x)))", "12:51: a second loop; use at most one"),
    (FEATURE, "temp: size(context.phi.map(x, x).filter(x, x > 0.0))", "12:29: a second loop; use at most one of all"),
    (RULE, "when: context.temp", "23:11: a rule needs true or false, this is double"),
    (RULE, "when: !has(context.temp)", "23:11: tags are not supported, and '!has(context.temp)' reads as one; quote"),
    (RULE, "when: has(context.temp) ? true : false : 1", "23:11: not YAML"),
    (RULE, "when: |\n      has(context.temp) ||\n      context.no", "25:14: context declares no field 'no'"),
    (RULE, "when: >\n      has(context.temp) ||\n      context.no", "25:14: context declares no field 'no'"),
    (RULE, 'when: "\'é\' == \\"\\" || context.no"', "23:34: context declares no field 'no'"),
    (RULE, "when: action.tool.matches('(')", "23:31: not a regular expression (RE2): invalid regular expression"),
    (RULE, "when: action.tool.matches(action.tool)", "23:30: the pattern of matches() must be a literal string"),
    (RULE, "when: " + "(" * 50 + "true" + ")" * 50, "23:11: nested too deeply (at most 32 levels); split it"),
    (RULE, "when: '" + "x" * (MAX_EXPRESSION_LENGTH + 1) + "'", "23:11: when is 'xxx"),
    (RULE, "when: context.temp == null", "23:24: '==' does not take (double, null_type)"),
    ("harm: outcome.bad", "harm: outcome.bed", "19:14: outcome declares no field 'bed'; did you mean 'bad'?"),
    ("harm: outcome.bad", "harm: context.temp > 1.0", "19:14: unknown name 'context.temp"),
]


@pytest.mark.parametrize(("old", "new", "expected"), EXPRESSIONS, ids=[new[:40] for _, new, _ in EXPRESSIONS])
def test_expression_errors_point_into_the_expression(problems, old, new, expected):
    if expected.endswith("not YAML"):
        expected = "23:36: not YAML: mapping values are not allowed here"
    found = problems("logistic", (old, new))
    assert found[0].startswith(f"p.yaml:{expected}"), found


def test_an_expression_that_explodes_is_refused(problems):
    wide = ("{type: list, length: 3}", "{type: list, length: 1024}")
    for loop in ("context.phi.exists(x, x in context.phi)", "context.phi.map(x, context.phi + context.phi).size() > 0"):
        assert "steps on the largest inputs" in problems("logistic", wide, (RULE, f"when: {loop}"))[0]
    growth = "(" + " + ".join(["action.tool"] * 25) + ")"
    every = f"when: context.phi.exists(x, {growth}.contains(action.tool))"
    assert "steps on the largest inputs" in problems("logistic", wide, (RULE, every))[0]


def test_every_problem_is_told_in_one_run(problems):
    found = problems(
        "logistic",
        ("name: p", "name: P"),
        (FEATURE, "temp: context.tmp"),
        ("points: 11, sd: 1", "points: 11, sd: -1"),
        ("harm: outcome.bad", "harm: outcome.bad || !outcome.bad"),
        ("escalate_above: 0.1", "escalate_above: 0.3"),
        (RULE, "when: 3.0"),
        ("reason: no temperature", "reason: a\n    reason: b\n    extra: c"),
    )
    lines = [int(problem.split(":")[1]) for problem in found]
    assert lines == sorted(lines) == [2, 12, 17, 19, 21, 23, 26, 27]


def test_loading_names_the_file(tmp_path, documents):
    path = tmp_path / "policy.yaml"
    path.write_text(documents["beta"])
    assert load_policy(path) == load_policy(str(path))
    assert load_policy(path).path == str(path)
    path.write_text("a: 1")
    with pytest.raises(PolicyError, match=f"^{path}:1:1: "):
        load_policy(path)
    with pytest.raises(PolicyError, match="cannot be read"):
        load_policy(tmp_path)


@pytest.mark.parametrize("name", NAMES)
def test_the_revision_is_of_the_content(documents, name):
    text = documents[name]
    revision = parse_policy(text).revision
    assert len(revision) == 64
    blocks = [block for block in ("\n" + text).replace("\n ", "\r ").split("\n") if block]
    reordered = "# a comment\n" + "\n\n".join(reversed(blocks)).replace("\r", "\n") + "\n"
    assert reordered != text
    assert parse_policy(reordered).revision == revision
    assert parse_policy(text.replace("0.05", "5.0e-2"), "other.yaml").revision == revision
    assert parse_policy(text.replace("0.05", "0.06")).revision != revision
    assert parse_policy(text.replace("description: d", "description: e")).revision != revision


def test_integer_and_string_categories_have_different_revisions(policy):
    strings = policy("beta", ("[x, y]", "['0', '1']"))
    integers = policy("beta", ("[x, y]", "[0, 1]"), ("kind: string", "kind: integer"))
    same_type = policy("beta", ("[x, y]", "['0', '1']"), ("category: action.kind", "category: string(action.kind)"))
    assert len({strings.revision, integers.revision, same_type.revision}) == 3


def test_the_order_of_mapping_keys_has_no_meaning(edited):
    two = (
        (FEATURE, "z: action.count\n  temp: context.temp"),
        ("    temp: {", "    z: {lower: 0, upper: 1, points: 2, sd: 1}\n    temp: {"),
    )
    swapped = (FEATURE, "temp: context.temp\n  z: action.count"), two[1]
    first, second = parse_policy(edited("logistic", *two)), parse_policy(edited("logistic", *swapped))
    assert first.feature_names == second.feature_names == ("temp", "z")
    assert list(first.spec.hypotheses.coefficients) == ["temp", "z"]
    assert first.revision == second.revision


def parses_or_explains(text):
    try:
        return parse_policy(text)
    except PolicyError as error:
        explained = bool(error.problems) and all(problem.message for problem in error.problems)
    assert explained
    return None


@settings(derandomize=True, deadline=None, max_examples=120)
@given(st.text(max_size=60))
def test_random_text_raises_policy_errors_only(text):
    assert parses_or_explains(text) is None


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from(["context.temp", "1.0"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5) | st.integers(), inner, max_size=3),
    max_leaves=5,
)


def as_yaml(value):
    """Flow style, which is JSON with a little more."""
    import json
    import math

    if isinstance(value, dict):
        return "{" + ", ".join(f"{as_yaml(k)}: {as_yaml(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(as_yaml, value)) + "]"
    if isinstance(value, float) and not math.isfinite(value):
        return ".nan" if math.isnan(value) else ".inf" if value > 0 else "-.inf"
    return json.dumps(value)


@pytest.mark.parametrize("said", ["", "harm:\n", "harm: null\n"], ids=["left out", "empty", "null"])
def test_harm_that_is_not_said_is_explained(documents, said):
    with pytest.raises(PolicyError) as caught:
        parse_policy(documents["beta"].replace("harm: outcome.bad\n", said))
    assert any("harm" in problem.message for problem in caught.value.problems)


@settings(derandomize=True, deadline=None, max_examples=120)
@given(data=st.data(), name=st.sampled_from(NAMES))
def test_a_random_change_raises_policy_errors_only(documents, data, name):
    lines = documents[name].splitlines()
    index = data.draw(st.integers(0, len(lines) - 1))
    key = lines[index].partition(":")[0]
    lines[index] = data.draw(st.sampled_from([f"{key}: ", "", "  "])) + as_yaml(data.draw(values))
    parses_or_explains("\n".join(lines))


@settings(derandomize=True, deadline=None, max_examples=60)
@given(data=st.data(), name=st.sampled_from(NAMES), key=st.from_regex(r"[a-z_]{4,9}", fullmatch=True))
def test_an_extra_key_never_loads(documents, data, name, key):
    text = documents[name]
    spots = [at for at, character in enumerate(text) if character == "{" and "rates: " not in text[at - 7 : at]]
    at = data.draw(st.sampled_from(spots))
    changed = f"{text[: at + 1]}{key}: 1, {text[at + 1 :]}"
    if key not in text:
        assert parses_or_explains(changed) is None
        assert parses_or_explains(text + f"{key}: 1\n") is None


@settings(derandomize=True, deadline=None, max_examples=120)
@given(
    st.lists(
        st.sampled_from(
            [*"()[]{}?:!&|+-*/<>='\",.\\ \n10xé\0", "context.temp", "has(", "action.tool", "&&", "||", "=="]
        ),
        max_size=20,
    ).map("".join)
)
def test_random_expressions_raise_policy_errors_only(documents, expression):
    text = documents["logistic"].replace("'!has(context.temp)'", as_yaml(expression))
    parses_or_explains(text)


def test_a_large_document_is_refused_before_it_is_parsed(problems):
    assert problems("#" * (MAX_DOCUMENT_BYTES + 1)) == [
        f"p.yaml:0:0: larger than {MAX_DOCUMENT_BYTES} bytes; make it smaller"
    ]


def test_a_flood_of_problems_is_cut(problems, documents):
    found = problems(documents["beta"] + "".join(f"x{i}: 1\n" for i in range(3000)))
    assert len(found) == MAX_PROBLEMS
    assert found[-1].endswith(": 2001 more problems from here on; correct the first ones")
    assert len(problems("a: [" + "&x 1, " * 3000)) == MAX_PROBLEMS + 1
