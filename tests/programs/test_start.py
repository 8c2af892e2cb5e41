"""Loading a program: what is wrong is told at its place in the policy, and the prior predictive check."""

import numpy as np
import program_policies
import pytest

from guardrail import Guard
from guardrail.errors import PolicyError
from guardrail.policy import load_policy
from guardrail.programs import lint

SYNTAX = "def model(inputs):\n    return (\n"
LOOP = program_policies.MODEL + "\nwhile True:\n    pass\n"
EXIT = program_policies.MODEL + "\nimport os\nprint('so long', flush=True)\nos._exit(3)\n"
RAISES = program_policies.MODEL.replace('numpyro.sample("y"', 'numpyro.sampel("y"')
BRANCHES = program_policies.MODEL.replace("    numpyro", '    if inputs["x"] > 0:\n        numpyro')
MISSING = "import no_such_module\n" + program_policies.MODEL
HELPER = "from helper import RATE\n" + program_policies.MODEL.replace("1.0))", "RATE))")


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (SYNTAX, r"model\.py:model model\.py is no Python: '\(' was never closed on line 2"),
        (EXIT, r"model\.py:model ended by itself with exit status 3: so long"),
        (RAISES, r"model\.py:model raises AttributeError at model\.py:7: .*'sampel'"),
        pytest.param(LOOP, r"model\.py:model did not answer within", marks=pytest.mark.slow),
        pytest.param(MISSING, "needs the module 'no_such_module', which is not installed", marks=pytest.mark.slow),
        pytest.param(
            BRANCHES, r"raises TracerBoolConversionError at model\.py:.*jax\.numpy\.where", marks=pytest.mark.slow
        ),
        pytest.param("x = 1\n", r"there is no function of that name; model\.py defines none", marks=pytest.mark.slow),
    ],
)
def test_a_program_that_cannot_be_loaded(tmp_path, model, message):
    path = program_policies.write(tmp_path, ("load_seconds: 120", "load_seconds: 12"), model=model)
    with pytest.raises(PolicyError, match=message) as caught:
        Guard.from_file(path)
    (problem,) = caught.value.problems
    assert (problem.path, problem.line, problem.column) == (str(path), 8, 10)


def test_what_was_hashed_is_what_runs(tmp_path):
    path = program_policies.write(tmp_path, ("  use:", "  data: [rates/rate.txt]\n  use:"), model=HELPER)
    (tmp_path / "helper.py").write_text(
        'from pathlib import Path\nRATE = float((Path(__file__).parent / "rates/rate.txt").read_text())\n'
    )
    (tmp_path / "rates").mkdir()
    (tmp_path / "rates" / "rate.txt").write_text("1.0")
    policy = load_policy(path)
    # Files that change after the policy was read change nothing.
    (tmp_path / "helper.py").write_text("raise SystemExit\n")
    (tmp_path / "rates" / "rate.txt").unlink()
    found = lint.check(policy)
    assert (found.errors, found.warnings) == ([], [])
    assert found.drawn["outcomes"].shape == (1, 1000)
    assert abs(found.drawn["outcomes"].std() - np.sqrt(2.0)) < 0.2
    assert load_policy_error(path) == [
        "rates/rate.txt cannot be read: No such file or directory; it must lie in the policy's folder"
    ]


def load_policy_error(path):
    with pytest.raises(PolicyError) as caught:
        load_policy(path)
    return [problem.message for problem in caught.value.problems]


def test_a_prior_that_says_what_is_implausible_is_a_warning_and_can_be_drawn(tmp_path):
    path = program_policies.write(tmp_path, ("{inputs:", "{lower: 0, upper: 9, inputs:"))
    policy = load_policy(path)
    found = lint.check(policy)
    assert found.errors == []
    (warning,) = found.warnings
    assert (warning.line, warning.message.split(" of ")[0][-1]) == (10, "%")
    assert "outcomes at example input 1 lie outside [0, 9]" in warning.message
    lint.plot(policy, found.drawn, tmp_path / "prior.png")
    assert (tmp_path / "prior.png").read_bytes().startswith(b"\x89PNG")


def test_numbers_that_are_none_are_errors():
    drawn = {name: np.zeros((2, 100)) for name in ("outcomes", "log_likelihoods", "harms")}
    assert list(lint._errors(drawn)) == []
    drawn["outcomes"][0, :3] = np.inf
    drawn["log_likelihoods"][1, :4] = np.nan
    drawn["harms"][1, 0] = 1.5
    assert list(lint._errors(drawn)) == [
        "draws outcomes that are no finite numbers, in 3 of 100 draws at example input 1",
        "gives its own outcomes no finite log-likelihood, in 4 of 100 draws at example input 2",
        "gives harm probabilities that are not in [0, 1], in 1 of 100 draws at example input 2",
    ]
