"""Policies, suites, expressions and snapshots with changed parts: a value, or an error that says where."""

from __future__ import annotations

import io
import json
import random
import time
from pathlib import Path

import pytest
from fuzz_targets import ROOT, check_document, fuzz_expression, fuzz_snapshot
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML

from guardrail.errors import PolicyError
from guardrail.policy import load_policy, parse_policy
from guardrail.policy.suite import run_suite
from guardrail.policy.suite_file import load_suite
from guardrail.policy.yaml_source import MAX_DOCUMENT_BYTES, MAX_VALUES

LIGHT = ["exploding-bandit", "oring-launch", "tool-calls", "reactor-temperature"]
POLICIES = sorted(ROOT.glob("policies/*/policy.yaml")) + sorted(ROOT.glob("policies/programs/*/policy.yaml"))

ODD = [
    None,
    True,
    False,
    0,
    -1,
    1,
    2,
    10**18,
    10**40,
    1e308,
    -0.0,
    1e-320,
    float("nan"),
    float("inf"),
    "",
    "\0",
    "é",
    "1",
]
ODD += ["true", "context", "context.x", "a" * 3_000, "(" * 40 + "1" + ")" * 40, "!", "no\nway", [], {}, [[]], {"": {}}]
ODD += [{"a": 1}, {1: 2}, [0.1] * 5, ["x"] * 3, "\ud83d\ude00"]


def places(tree, route=()):
    """The route of every value below the root."""
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in items:
        yield (*route, key)
        yield from places(value, (*route, key))


def parent_of(tree, route):
    for key in route[:-1]:
        tree = tree[key]
    return tree


def change(tree, draw):
    """One change of a tree, in place."""
    routes = list(places(tree))
    if not routes:
        return
    route = draw.choice(routes)
    parent, key = parent_of(tree, route), route[-1]
    match draw.randrange(7):
        case 0:
            del parent[key]
        case 1 | 2:
            parent[key] = draw.choice(ODD)
        case 3 if isinstance(parent, dict):
            parent[draw.choice(["x", "name", "kind", "", "0", 7, f"{key}_", str(key).upper()])] = parent.pop(key)
        case 4:
            other = draw.choice(routes)
            parent[key] = json.loads(json.dumps(parent_of(tree, other)[other[-1]], default=str))
        case 5 if isinstance(parent, list):
            parent[:] = parent * draw.randrange(2, 4)
        case _ if isinstance(parent[key], (int, float)) and not isinstance(parent[key], bool):
            parent[key] = parent[key] * draw.choice([-1, 0, 0.5, 2, 1e9, 1e300])


def changed(text, seed):
    """A document with one to three changes."""
    draw = random.Random(seed)
    yaml = YAML(typ="safe", pure=True)
    tree = yaml.load(text)
    for _ in range(draw.randrange(1, 4)):
        try:
            change(tree, draw)
        except (KeyError, IndexError, TypeError):
            continue  # an earlier change took the place away
    out = io.StringIO()
    YAML(typ="safe", pure=True).dump(tree, out)
    return out.getvalue()


@pytest.mark.parametrize("path", POLICIES, ids=lambda path: path.parent.name)
def test_a_changed_policy_is_a_policy_or_says_where_it_is_not(path):
    text = path.read_text()
    for seed in range(12):
        check_document(changed(text, seed))


@pytest.mark.parametrize("path", POLICIES[:3], ids=lambda path: path.parent.name)
def test_a_cut_or_garbled_policy_is_a_policy_or_says_where_it_is_not(path):
    data, draw = path.read_bytes(), random.Random(1)
    for _ in range(15):
        place = draw.randrange(len(data))
        check_document(data[:place].decode(errors="replace"))
        check_document((data[:place] + draw.randbytes(draw.randrange(1, 5)) + data[place:]).decode(errors="replace"))


@pytest.mark.parametrize("name", LIGHT)
def test_a_changed_suite_runs_or_says_where_it_is_wrong(name, tmp_path):
    policy = load_policy(ROOT / "policies" / name / "policy.yaml")
    text = (ROOT / "policies" / name / "suite.yaml").read_text()
    path = tmp_path / "suite.yaml"
    for seed in range(6):
        path.write_text(changed(text, seed), errors="surrogatepass")
        try:
            spec, _ = load_suite(path)
        except PolicyError as error:
            problems = error.problems
            spec = None
        if spec is None:
            assert problems
            assert all(problem.line >= 1 and problem.message for problem in problems)
            continue
        if sum(event.times for case in spec.cases for event in case.history) < 1_000:
            report = run_suite(policy, path, make_guard=NoGuard)
            assert len(report.cases) == len(spec.cases)


class NoGuard:
    """A guard that takes everything the policy's declarations take, without a posterior."""

    def __init__(self, policy):
        from guardrail.guard import Guard

        self._guard = Guard(policy)
        self._policy = policy

    def fork(self):
        return self

    def check(self, context, action):
        return self._guard.check(context, action)

    def observe(self, context, action, outcome):
        self._policy.inputs(context, action)
        self._policy.outcome_value(outcome)


FRAGMENTS = [
    "context.x",
    "action.n",
    "context.v",
    "action.s",
    "has(",
    ")",
    "(",
    "==",
    "&&",
    "||",
    "!",
    "-",
    "+",
    "*",
    "/",
    "%",
]
FRAGMENTS += [
    "1.0",
    "2",
    "9223372036854775807",
    "1e400",
    '"a"',
    "'\\u00e9'",
    "[",
    "]",
    ",",
    "?",
    ":",
    "in",
    "true",
    "null",
    "{",
    "}",
]
FRAGMENTS += [
    ".all(e, e > 0.0)",
    ".map(e, e * 2.0)",
    ".exists(e, e",
    ".matches(",
    "size(",
    "double(",
    "int(",
    "string(",
    "// x\n",
]
FRAGMENTS += [
    "b'\\xff'",
    "timestamp(",
    "duration('1s')",
    "dyn(",
    ".filter(e, ",
    "[0]",
    "u",
    "\0",
    "\ud7ff",
    "\U0001f4a9",
    " ",
    "\n",
]


@given(st.lists(st.sampled_from(FRAGMENTS), max_size=25).map("".join))
@settings(derandomize=True, deadline=None, database=None, max_examples=500)
def test_any_expression_is_checked_or_refused_in_its_place(text):
    fuzz_expression(text.encode(errors="surrogatepass"))


@given(st.binary(min_size=2, max_size=60))
@settings(derandomize=True, deadline=None, database=None, max_examples=80, suppress_health_check=list(HealthCheck))
def test_any_snapshot_is_refused_or_gives_bounds_that_are_probabilities(data):
    fuzz_snapshot(data)


HOSTILE = {
    "a long flow list": "a: [" + "1," * ((MAX_DOCUMENT_BYTES - 10) // 2) + "1]",
    "a long list": "a:\n" + "- 1\n" * ((MAX_DOCUMENT_BYTES - 10) // 4),
    "many keys": "".join(f"k{i}: 1\n" for i in range(90_000)),
    "many aliases": "a: [" + "*a," * ((MAX_DOCUMENT_BYTES - 10) // 3) + "1]",
    "many anchors": "a: [" + "&a 1," * ((MAX_DOCUMENT_BYTES - 10) // 5) + "1]",
    "deep nesting": "[" * MAX_DOCUMENT_BYTES,
    "many keys in one line": "? " * (MAX_DOCUMENT_BYTES // 2),
    "a long text": 'a: "' + "\\x41" * ((MAX_DOCUMENT_BYTES - 10) // 4) + '"',
    "a text of many lines": "a: x\n" + "  y\n" * ((MAX_DOCUMENT_BYTES - 10) // 4),
    "many comments": "#\n" * (MAX_DOCUMENT_BYTES // 2),
    "many documents": "---\n" * (MAX_DOCUMENT_BYTES // 4),
    "many rules": (ROOT / "policies/oring-launch/policy.yaml").read_text()
    + "".join(f"  - {{when: 'context.x{i} > 1.0', decide: reject, reason: a}}\n" for i in range(15_000)),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_document_of_the_largest_size_takes_seconds_not_minutes(name):
    text = HOSTILE[name]
    assert len(text) <= MAX_DOCUMENT_BYTES
    started = time.process_time()
    with pytest.raises(PolicyError) as caught:
        parse_policy(text)
    assert caught.value.problems
    assert time.process_time() - started < 12.0  # half of it is the reading of MAX_VALUES values


def test_a_document_with_too_many_values_says_where_they_become_too_many():
    text = "a:\n" + "- 1\n" * MAX_VALUES
    with pytest.raises(PolicyError, match=f"{MAX_VALUES - 1}:3: more than {MAX_VALUES} values; use fewer"):
        parse_policy(text)


def test_the_shipped_policies_are_far_below_the_limits():
    for path in POLICIES:
        assert Path(path).stat().st_size < MAX_DOCUMENT_BYTES / 20
