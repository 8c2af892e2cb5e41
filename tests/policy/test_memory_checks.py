"""What must fit together in the families with states, and integer outcomes."""

import pytest

from guardrail.domain import IntegerHarm
from guardrail.errors import InvalidInput
from guardrail.policy import mixture as mixtures
from guardrail.policy.diff import diff
from guardrail.policy.lint import lint, log_smallest_prior
from guardrail.policy.memory_schema import WeightGrid

CASES = [
    # hidden Markov models
    ("hidden", [("initial: [0.5, 0.5]", "initial: [0.5, 0.4]")], ["10:16: the probabilities sum to 0.9; they must"]),
    ("hidden", [("[0.9, 0.1]", "[0.9, 0.2]")], ["11:25: the probabilities sum to 1.1; they must"]),
    ("hidden", [("[[1, 0], [0, 1]]", "[[1, 0]]")], ["11:49: has 1 rows for 2 hidden states; give one each"]),
    ("hidden", [("[[0.9, 0.1]", "[[1]")], ["11:25: has 1 probabilities for 2 hidden states; give one each"]),
    ("hidden", [("rates: [0.1, 0.6]", "rates: [0.1]")], ["12:14: has 1 entries for 2 hidden states; give one each"]),
    (
        "hidden",
        [("      rates: [0.1, 0.6]\n", "")],
        ["9:7: hypothesis 'a' gives neither rates nor normals; give exactly one"],
    ),
    (
        "hidden",
        [("type: bool", "type: number"), ("harm: outcome.bad", "harm: outcome.bad > 1.0")],
        ["12:7: a number outcome needs normals, hypothesis 'a' gives rates", "13:51: a number outcome needs normals"],
    ),
    (
        "hidden",
        [("type: bool", "type: integer, count: 3"), ("harm: outcome.bad", "harm: outcome.bad == 1")],
        ["14:28: family hidden-markov models a bool or number outcome, not an integer; change one of them"],
    ),
    ("hidden", [("{name: b,", "{name: a,")], ["13:14: 'a' is given twice; every one needs its own name"]),
    ("hidden", [("{name: b,", "{name: b, prior: 1,")], ["9:7: hypothesis 'a' has no prior but others do"]),
    (
        "hidden",
        [("  category: action.kind\n", "")],
        ["10:7: tells categories apart, but no category is given", "12:51: tells categories apart"],
    ),
    ("hidden", [("y: [0.3]", "z: [0.3]")], ["13:58: categories differ from those named first: lacks 'y'"]),
    (
        "hidden",
        [("kind: string", "kind: integer")],
        [
            "11:21: category 'x' does not fit: the category's value is an integer; unquote it",
            "11:46:",
            "13:59:",
            "13:69:",
        ],
    ),
    (
        "hidden",
        [("hypotheses:", "features: {f: '1.0'}\nhypotheses:")],
        ["5:12: feature 'f' has no effect in family hidden-markov"],
    ),
    # finite Markov decision processes
    (
        "mdp",
        [("features: {state: context.at, action: action.move}", "features: {state: context.at}")],
        ["8:11: family finite-mdp needs a feature 'action', the number of the action; add features.action"],
    ),
    (
        "mdp",
        [("action: action.move}", "action: action.move, f: '1.0'}")],
        ["6:52: feature 'f' has no effect in family finite-mdp, which uses state and action; leave it out"],
    ),
    ("mdp", [("action: action.move}", "action: '[1.0, 2.0]'}")], ["6:39: must be one number, this is a list"]),
    (
        "mdp",
        [("type: integer, count: 3", "type: bool"), ("outcome.at == 2", "outcome.at")],
        ["18:27: family finite-mdp models an integer outcome, not a bool; change one of them"],
    ),
    (
        "mdp",
        [("count: 3", "count: 4")],
        ["14:13: has 3 rows, but outcome.count says that there are 4 states", "15:12: has 3 rows", "10:19: has 3 act"],
    ),
    ("mdp", [("[1, 2], [2, 2]]", "[1], [2, 2]]")], ["15:21: has 1 entries, the first row has 2; give one for each"]),
    ("mdp", [("[[0, 2], [1,", "[[0, 7], [1,")], ["15:17: state 7 does not exist; states are 0, ..., 2"]),
    ("mdp", [("{1: 0.5, 2: 0.5}", "{1: 0.5, x: 0.5}")], ["14:35: the name 'x' is not allowed; needs an integer"]),
    ("mdp", [("{1: 0.5, 2: 0.5}", "{1: 0.5, 2: 0.4}")], ["14:26: the probabilities sum to 0.9; they must sum to 1"]),
    ("mdp", [("  default_policy: [0, 1, 0]\n", "")], ["9:12: the steps after the action need a default policy"]),
    ("mdp", [("horizon: 3", "horizon: 1")], ["10:3: a horizon of 1 is the action's own step, so a default policy has"]),
    ("mdp", [("default_policy: [0, 1, 0]", "default_policy: [0, 1]")], ["10:19: has 2 actions for 3 states"]),
    (
        "mdp",
        [("default_policy: [0, 1, 0]", "default_policy: [0, 2, 0]")],
        ["10:23: action 2 does not exist; actions are"],
    ),
    ("mdp", [("terminal: [0]", "terminal: [3]")], ["11:14: state 3 does not exist; states are 0, ..., 2"]),
    ("mdp", [("rest: near", "rest: neer")], ["17:11: 'neer' is not a kernel; the kernels are 'far', 'near'"]),
    (
        "mdp",
        [("weights: {far:", "weights: {fur:")],
        ["15:7: kernel 'far' has no weight; add hypotheses.mixture.weights.far", "16:15: 'fur' is not a kernel"],
    ),
    ("mdp", [("points: 6", "points: 1")], ["16:20: 1 points need lower equal to upper"]),
    ("mdp", [("lower: 0, upper: 0.5", "lower: 0.7, upper: 0.5")], ["16:20: 6 points need lower below upper"]),
    (
        "mdp-table",
        [("  table:\n    - {name: a, kernel: [[0, 1], [1, 1]]}\n    - {name: b, kernel: [[0, 0], [0, 1]]}\n", "")],
        ["7:1: the hypotheses are given by neither a table nor a mixture; give exactly one"],
    ),
    # harm over an integer
    ("mdp", [("harm: outcome.at == 2", "harm: outcome.at > 9")], ["19:18: harm never happens"]),
    ("mdp", [("harm: outcome.at == 2", "harm: outcome.at + 1")], ["19:18: harm needs true or false"]),
    (
        "mdp",
        [("harm: outcome.at == 2", "harm: 4 / outcome.at == 2")],
        ["19:22: cannot be evaluated for outcome.at = 0"],
    ),
    ("mdp", [(", count: 3", "")], ["18:10: field 'count' is missing; add it"]),
]


@pytest.mark.parametrize(("name", "edits", "expected"), CASES, ids=[str(edits)[:60] for _, edits, _ in CASES])
def test_what_does_not_fit_is_told_with_its_place(problems, name, edits, expected):
    found = problems(name, *edits)
    assert len(found) == len(expected), found
    for start in expected:
        assert any(problem.startswith(f"p.yaml:{start}") for problem in found), found


def test_messages_about_harm(problems):
    assert "harm never happens" in problems("mdp", ("outcome.at == 2", "outcome.at > 9"))[0]
    assert "write outcome.at in [...]" in problems("mdp", ("outcome.at == 2", "outcome.at + 1"))[0]
    assert "cannot be evaluated for outcome.at = 0" in problems("mdp", ("outcome.at == 2", "4 / outcome.at == 2"))[0]


@pytest.mark.parametrize(
    ("expression", "harmful"),
    [
        ("outcome.at in [0, 2]", {0, 2}),
        ("outcome.at >= 1", {1, 2}),
        ("!(outcome.at == 1)", {0, 2}),
        ("outcome.at % 2 == 1", {1}),
    ],
)
def test_harm_is_every_value_for_which_the_predicate_holds(policy, expression, harmful):
    assert policy("mdp", ("harm: outcome.at == 2", f"harm: '{expression}'")).harm == IntegerHarm(frozenset(harmful), 3)


def test_integer_outcomes(policy):
    compiled = policy("mdp")
    assert compiled.outcome_type == "integer"
    assert compiled.outcome_value(2) == compiled.outcome_value({"at": 2.0}) == 2.0
    for bad in (3, -1, 0.5, True, "1", float("nan")):
        with pytest.raises(InvalidInput):
            compiled.outcome_value(bad)


def test_another_count_is_another_quantity(policy):
    small, large = policy("mdp-table"), policy("mdp")
    assert any(reason.startswith("outcome:") for reason in diff(small, large).reasons)
    changed = policy("mdp", ("{lower: 0, upper: 0.5, points: 6}", "{lower: 0, upper: 0.5, points: 11}"))
    found = diff(policy("mdp"), changed)
    assert [change.path for change in found.changes] == ["hypotheses.mixture.weights.far.points"]
    assert found.restarts_guarantee


def test_lint(policy):
    assert lint(policy("mdp")) == lint(policy("hidden")) == lint(policy("mdp-table")) == []
    alone = policy("mdp-table", ("    - {name: b, kernel: [[0, 0], [0, 1]]}\n", ""))
    assert ["one hypothesis only" in str(problem) for problem in lint(alone)] == [True]
    assert log_smallest_prior(policy("mdp")) == pytest.approx(-1.791759469228055)
    assert log_smallest_prior(policy("hidden")) == pytest.approx(-0.6931471805599453)


def test_too_large_a_class_is_refused(problems, monkeypatch):
    found = problems(
        "mdp",
        ("points: 6", "points: 10000"),
        ("    weights: {far:", "    weights: {again: {lower: 0, upper: 0.5, points: 1000}, far:"),
        ("      far: [[0, 2]", "      again: [[0, 1], [0, 1], [2, 2]]\n      far: [[0, 2]"),
    )
    assert len(found) == 1
    assert "the grids have 10000000 combinations, at most 1048576 are allowed; use fewer points" in found[0]
    row = ", ".join(f"{state}: {1 / 64}" for state in range(64))
    kernel = f"[{', '.join(['[{' + row + '}]'] * 64)}]"
    table = "".join(f"    - {{name: h{place}, kernel: {kernel}}}\n" for place in range(2))
    monkeypatch.setattr(mixtures, "MAX_ENTRIES", 5_000)
    old = "    - {name: a, kernel: [[0, 1], [1, 1]]}\n    - {name: b, kernel: [[0, 0], [0, 1]]}\n"
    found = problems("mdp-table", (old, table), ("count: 2", "count: 64"))
    assert len(found) == 1
    assert "2 hypotheses of 4096 transition probabilities each are 8192, at most 5000" in found[0]


def test_weights_that_cannot_be_are_no_hypotheses():
    assert mixtures.grid_points(WeightGrid(lower=0.0, upper=0.3, points=4)) == pytest.approx((0, 0.1, 0.2, 0.3))
    assert mixtures.grid_points(WeightGrid(lower=0.3, upper=0.3, points=1)) == (0.3,)
