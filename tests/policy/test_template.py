import pytest

from guardrail.policy import load_policy
from guardrail.policy.lint import lint
from guardrail.policy.suite import run_suite
from guardrail.policy.suite_file import load_suite
from guardrail.policy.template import FAMILIES, FILES, MODEL, PROGRAMS, template


@pytest.mark.parametrize("family", FAMILIES)
def test_a_template_is_a_sound_policy_with_a_suite(family, tmp_path):
    files = template("my-policy", family)
    assert tuple(files) == (*FILES, MODEL) if family in PROGRAMS else FILES
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    policy = load_policy(tmp_path / "policy.yaml")
    assert policy.name == "my-policy"
    assert policy.spec.hypotheses.family == family
    assert lint(policy) == []
    assert "#" in files["policy.yaml"]
    assert files["README.md"].startswith("# my-policy\n")
    assert not any("{{" in text for text in files.values())
    suite, _ = load_suite(tmp_path / "suite.yaml")
    assert {case.expect.decision for case in suite.cases} == {"accept", "escalate", "reject"}


@pytest.mark.parametrize("name", ["", "A", "a b", "-a", "a" * 64, "null", "true", "a\n"])
def test_a_name_that_is_no_policy_name(name):
    with pytest.raises(ValueError, match="is not a policy name"):
        template(name, FAMILIES[0])


def test_an_unknown_family():
    with pytest.raises(ValueError, match=r"unknown family 'x'; known are bernoulli-logistic, beta-bernoulli"):
        template("a", "x")


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_a_template_passes_its_suite_in_the_real_guard(family, tmp_path):
    for name, text in template("my-policy", family).items():
        (tmp_path / name).write_text(text)
    report = run_suite(load_policy(tmp_path / "policy.yaml"), tmp_path / "suite.yaml")
    assert [case.failures for case in report.cases if not case.passed] == []
    assert report.unreached_rules == report.unreached_decisions == ()
