"""What must fit together between the parts of a policy, for every family."""

import pytest

from guardrail.errors import PolicyError
from guardrail.policy.schema import MAX_HYPOTHESES

ROW = "- {name: b, rates: {x: 0.3, y: 0.4}}"
CASES = [
    # thresholds
    (
        "table",
        [("reject_above: 0.2", "reject_above: 0.2, escalate_above: 0.2")],
        ["14:47: escalate_above 0.2 is not below reject_above 0.2, so nothing would be escalated"],
    ),
    # outcome against family
    (
        "logistic",
        [("type: bool", "type: number"), ("harm: outcome.bad", "harm: outcome.bad > 1.0")],
        ["18:28: family bernoulli-logistic models a bool outcome, not a number"],
    ),
    (
        "beta",
        [("type: bool", "type: number"), ("harm: outcome.bad", "harm: outcome.bad > 1.0")],
        ["10:28: family beta-bernoulli models a bool outcome, not a number"],
    ),
    (
        "lattice",
        [("type: number", "type: bool"), ("outcome.t > 3.0", "outcome.t")],
        ["7:26: family linear-gaussian-lattice models a number outcome, not a bool"],
    ),
    (
        "linear",
        [("type: number", "type: bool"), ("outcome.t > 3.0", "outcome.t")],
        ["7:26: family gaussian-linear models a number outcome, not a bool"],
    ),
    (
        "table",
        [("type: bool", "type: number"), ("harm: outcome.bad", "harm: outcome.bad > 1.0")],
        [
            "9:17: a number outcome needs normal, hypothesis 'a' gives rates",
            "10:17: a number outcome needs normal, hypothesis 'b' gives rates",
        ],
    ),
    (
        "normal-table",
        [("type: number", "type: bool"), ("outcome.t > 3.0", "outcome.t")],
        ["7:17: a bool outcome needs rates, hypothesis 'a' gives normal", "8:17: a bool outcome needs rates"],
    ),
    # bound against family
    (
        "beta",
        [("kind: ratio, delta: 0.05", "kind: plausible, alpha: 0.05")],
        ["12:15: family beta-bernoulli is continuous, so a single hypothesis has no posterior mass"],
    ),
    ("linear", [("kind: ratio, delta: 0.05", "kind: iid")], ["9:15: family gaussian-linear is continuous"]),
    (
        "linear",
        [("delta: 0.05", "delta: 0.05, running: true")],
        ["9:44: an intersection of ellipsoids has no closed form, so gaussian-linear needs running: false"],
    ),
    # features needed and forbidden
    (
        "lattice",
        [("features: {phi: context.phi}\n", "")],
        ["5:22: family linear-gaussian-lattice needs at least one feature; add features"],
    ),
    (
        "linear",
        [("features: {phi: context.phi}\n", "features: {}\n")],
        ["6:22: family gaussian-linear needs at least one feature"],
    ),
    (
        "linear",
        [("length: 3", "length: 1024")],
        ["5:1: family gaussian-linear takes at most 1000 numbers, the features are 1024"],
    ),
    (
        "table",
        [("hypotheses:", "features: {f: '1.0'}\nhypotheses:")],
        ["5:12: feature 'f' has no effect in family finite-table"],
    ),
    (
        "beta",
        [("hypotheses:", "features: {f: '1.0'}\nhypotheses:")],
        ["5:12: feature 'f' has no effect in family beta-bernoulli"],
    ),
    # logistic
    (
        "logistic",
        [("    temp: {lower", "    tmp: {lower")],
        [
            "12:3: feature 'temp' has no coefficient; add hypotheses.coefficients.temp",
            "17:5: coefficient 'tmp' belongs to no feature",
        ],
    ),
    (
        "logistic",
        [("temp: context.temp\n", "temp: context.phi\n")],
        ["12:9: a coefficient belongs to one number, this feature is a list"],
    ),
    (
        "logistic",
        [("upper: 3, points: 11", "upper: 3, points: 100000"), ("upper: 5, points: 11", "upper: 5, points: 2000")],
        ["16:3: the grid has 200000000 hypotheses, at most 134217728 are allowed; use fewer points"],
    ),
    ("logistic", [("lower: 0, upper: 3", "lower: 3, upper: 3")], ["17:19: lower 3 is not below upper 3"]),
    (
        "logistic",
        [("lower: -5, upper: 5, points: 11", "lower: -5, upper: 5, points: 1")],
        ["15:44: one point needs lower equal to upper"],
    ),
    # lattice
    (
        "lattice",
        [("levels: 2", "levels: 64"), ("length: 3", "length: 5")],
        ["6:55: 64 levels for each of 5 features are 64^5 hypotheses, at most 134217728 are allowed"],
    ),
    (
        "lattice",
        [("noise_sd: 1", "noise_sd: 1, prior: {probabilities: [0.5, 0.25, 0.25]}")],
        ["6:94: has 3 probabilities for 2 levels; give one each"],
    ),
    (
        "lattice",
        [("noise_sd: 1", "noise_sd: 1, prior: {probabilities: [0.5, 0.4]}")],
        ["6:94: the probabilities sum to 0.9; they must sum to 1"],
    ),
    ("lattice", [("noise_sd: 1", "noise_sd: 1, prior: unifrm")], ["6:78: prior is 'unifrm'; needs uniform"]),
    # gaussian-linear
    ("linear", [("lower: -1", "lower: 1")], ["6:81: lower 1 is not below upper 1; swap them"]),
    # finite-table
    (
        "table",
        [(ROW, "- {name: a, rates: {x: 0.3, y: 0.4}}")],
        ["10:14: 'a' is given twice; every one needs its own name"],
    ),
    ("table", [(ROW, "- {name: b}")], ["10:7: hypothesis 'b' gives neither rates nor normal; give exactly one"]),
    (
        "table",
        [(ROW, "- {name: b, rates: 0.1, normal: {mean: 0, sd: 1}}")],
        ["10:7: hypothesis 'b' gives both rates and normal; give exactly one"],
    ),
    (
        "table",
        [(ROW, "- {name: b, rates: {x: 0.3, z: 0.4}}")],
        ["10:24: categories differ from those of hypothesis 'a': lacks 'y'"],
    ),
    (
        "table",
        [(ROW, "- {name: b, rates: {x: 0.3, y: 0.4, z: 0.4}}")],
        ["10:24: categories differ from those of hypothesis 'a': adds 'z'"],
    ),
    ("table", [(ROW, "- {name: b, rates: {}}")], ["10:24: names no category; name at least one"]),
    (
        "table",
        [(ROW, "- {name: b, prior: 0.5, rates: {x: 0.3, y: 0.4}}")],
        ["9:7: hypothesis 'a' has no prior but others do; give one to all or to none"],
    ),
    (
        "table",
        [(ROW, "- {name: b, prior: 0.5, rates: {x: 0.3, y: 0.4}}"), ("name: a,", "name: a, prior: 0.4,")],
        ["9:5: the priors sum to 0.9; they must sum to 1"],
    ),
    (
        "table",
        [("  category: action.kind\n", "")],
        ["8:7: rows differ by category, but no category is given", "9:7: rows differ by category"],
    ),
    (
        "table",
        [("rates: {x: 0.1, y: 0.2}", "rates: 0.1"), ("rates: {x: 0.3, y: 0.4}", "rates: 0.3")],
        ["7:3: no row tells categories apart, so the category has no effect; leave it out"],
    ),
    (
        "table",
        [("kind: string", "kind: integer")],
        ["9:25: category 'x' does not fit: the category's value is an integer; unquote it"],
    ),
    ("table", [("action.kind", "action.kind == 'x'")], ["7:13: needs a string or an integer, this is bool"]),
    # beta-bernoulli
    ("beta", [("[x, y]", "[x, y, x]")], ["8:22: 'x' is given twice; every one needs its own name"]),
    ("beta", [("[x, y]", "[x, 1]")], ["8:19: category 1 does not fit: the category's value is a string; quote it"]),
    ("beta", [("[x, y]", "[]")], ["8:15: no category is listed; list at least one"]),
    (
        "beta",
        [("[x, y]", "{count: 5}")],
        ["8:15: {count: N} means the integers 0..N-1, but the category is a string; list its values"],
    ),
    ("beta", [("  categories: [x, y]\n", "")], ["7:3: the categories are missing; add hypotheses.categories"]),
    ("beta", [("  category: action.kind\n", "")], ["7:3: categories are listed, but no category is given"]),
]


@pytest.mark.parametrize(("name", "edits", "expected"), CASES, ids=[f"{n}: {e[-1][-1][:40]}" for n, e, _ in CASES])
def test_parts_that_do_not_fit(problems, name, edits, expected):
    found = problems(name, *edits)
    for start in expected:
        assert any(problem.startswith(f"p.yaml:{start}") for problem in found), found
    if name != "table":
        assert len(found) == len(expected), found


FITTING = [
    ("lattice", [("levels: 2", "levels: 64"), ("length: 3", "length: 3")]),
    ("lattice", [("noise_sd: 1", "noise_sd: 1, prior: {probabilities: [0.9, 0.1]}")]),
    ("lattice", [("kind: ratio, delta: 0.05", "kind: plausible, alpha: 0.001, running: true")]),
    ("lattice", [("kind: ratio, delta: 0.05", "kind: iid")]),
    ("linear", [("kind: ratio, delta: 0.05", "kind: predictive"), (", box: {lower: -1, upper: 1}", "")]),
    ("linear", [(", box: {lower: -1, upper: 1}", "")]),
    ("beta", [("delta: 0.05", "delta: 0.05, running: true")]),
    ("beta", [("  category: action.kind\n  categories: [x, y]\n", "")]),
    ("beta", [("kind: string", "kind: integer"), ("[x, y]", "{count: 100000}")]),
    (
        "table",
        [("kind: string", "kind: integer"), ("{x: 0.1, y: 0.2}", "{0: 0.1, 1: 0.2}"), ("{x: 0.3, y: 0.4}", "0.5")],
    ),
    ("table", [("name: a,", "name: a, prior: 0.3333333,"), ("name: b,", "name: b, prior: 0.6666667,")]),
    ("logistic", [("lower: -5, upper: 5, points: 11", "lower: -3, upper: -3, points: 1")]),
]


@pytest.mark.parametrize(("name", "edits"), FITTING, ids=[f"{n}: {e[-1][-1][:40]}" for n, e in FITTING])
def test_parts_that_fit(policy, name, edits):
    policy(name, *edits)


def test_the_largest_lattice_is_exactly_the_limit(policy, problems):
    assert MAX_HYPOTHESES == 2**27
    policy("lattice", ("length: 3", "length: 27"))
    assert len(problems("lattice", ("length: 3", "length: 28"))) == 1


def test_a_box_beside_the_predictive_bound_has_no_effect_and_is_refused(policy):
    with pytest.raises(PolicyError, match="a box has no effect on the predictive bound"):
        policy("linear", ("kind: ratio, delta: 0.05", "kind: predictive"))
