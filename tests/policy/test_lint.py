import math

import pytest

from guardrail.policy.lint import lint, log_smallest_prior

TESTED = "when: '!has(context.temp)'"
CLEAN_LOGISTIC = [
    ("  phi: {type: list, length: 3}\n", ""),
    ("  count: integer\n  dry: bool\n", ""),
    (TESTED, "when: action.tool == 'x' && !has(context.temp)"),
]


def warnings(policy, name, *edits):
    return [str(problem) for problem in lint(policy(name, *edits))]


@pytest.mark.parametrize("name", ["beta", "lattice", "linear", "normal-table", "table"])
def test_a_sound_policy_has_no_warning(policy, name):
    assert warnings(policy, name) == []


def test_a_sound_policy_with_rules_has_no_warning(policy):
    assert warnings(policy, "logistic", *CLEAN_LOGISTIC) == []


@pytest.mark.parametrize(
    ("name", "edits", "expected"),
    [
        ("table", [("kind: ratio, delta: 0.05", "kind: predictive")], "13:15: predictive harm has no guarantee"),
        (
            "table",
            [("kind: ratio, delta: 0.05", "kind: iid")],
            "13:15: the iid bound holds only from some unknown time",
        ),
        (
            "table",
            [("kind: ratio, delta: 0.05", "kind: plausible, alpha: 0.5")],
            "13:33: alpha 0.5 is not below the small",
        ),
        ("lattice", [("kind: ratio, delta: 0.05", "kind: plausible, alpha: 0.13")], "9:33: alpha 0.13 is not below"),
        (
            "table",
            [("reject_above: 0.2", "reject_above: 1")],
            "14:26: no harm bound exceeds 1, so the bound rejects nothing",
        ),
        ("table", [("reject_above: 0.2", "reject_above: 0")], "14:26: any positive harm bound exceeds 0"),
        ("table", [("{kind: string}", "{kind: string, n: integer}")], "4:24: action.n is declared but nothing uses it"),
        (
            "beta",
            [("{kind: string}", "{kind: {type: string, optional: true}}")],
            "4:10: action.kind is optional, but nothing",
        ),
        ("linear", [(", box: {lower: -1, upper: 1}", "")], "6:22: without a box the bound of an action is 1"),
        ("normal-table", [("    - {name: b, normal: {mean: 1, sd: 1}}\n", "")], "7:5: one hypothesis only"),
    ],
)
def test_each_warning_has_its_place(policy, name, edits, expected):
    found = warnings(policy, name, *edits)
    assert len(found) == 1, found
    assert found[0].startswith(f"p.yaml:{expected}")


def test_rules_that_say_nothing(policy):
    rules = "".join(f"  - {{when: '{w}', decide: reject, reason: r}}\n" for w in ("action.dry", "action.dry", "1 < 2"))
    found = warnings(policy, "logistic", ("rules:\n", "rules:\n" + rules))
    assert "p.yaml:24:12: rule 2 never matches: rule 1 has the same condition" in found
    assert any(w.startswith("p.yaml:25:12: this condition reads no field") for w in found)


def test_an_alpha_below_the_smallest_prior_is_fine(policy):
    assert warnings(policy, "table", ("kind: ratio, delta: 0.05", "kind: plausible, alpha: 0.49")) == []
    assert warnings(policy, "lattice", ("kind: ratio, delta: 0.05", "kind: plausible, alpha: 0.124")) == []


def test_the_smallest_prior_mass(policy):
    assert log_smallest_prior(policy("table")) == pytest.approx(math.log(1 / 2))
    priors = ("name: a,", "name: a, prior: 0.3,"), ("name: b,", "name: b, prior: 0.7,")
    assert log_smallest_prior(policy("table", *priors)) == pytest.approx(math.log(0.3))
    assert log_smallest_prior(policy("lattice")) == pytest.approx(math.log(1 / 8))
    product = ("noise_sd: 1", "noise_sd: 1, prior: {probabilities: [0.9, 0.1]}")
    assert log_smallest_prior(policy("lattice", product)) == pytest.approx(math.log(1e-3))
    assert log_smallest_prior(policy("linear")) is None
    intercept = [math.exp(-0.5 * (x / 2) ** 2) for x in range(-5, 6)]
    slope = [math.exp(-0.5 * (0.3 * i) ** 2) for i in range(11)]
    masses = [a * b / sum(intercept) / sum(slope) for a in intercept for b in slope]
    assert log_smallest_prior(policy("logistic")) == pytest.approx(math.log(min(masses)))
