"""Policies that name a program: their files, their revision, and what must fit together."""

import program_policies
import pytest

from guardrail.domain import ModelHarm
from guardrail.errors import PolicyError
from guardrail.policy import load_policy, parse_policy
from guardrail.policy.diff import diff
from guardrail.policy.lint import lint, log_smallest_prior


def problems(path):
    with pytest.raises(PolicyError) as caught:
        load_policy(path)
    return [f"{problem.line}: {problem.message}" for problem in caught.value.problems]


def test_a_program_is_read_with_its_policy(tmp_path):
    path = program_policies.write(tmp_path)
    (tmp_path / "helper.py").write_text("x = 1\n")
    (tmp_path / "notes.txt").write_text("not part of it")
    (tmp_path / "__pycache__").mkdir()
    (tmp_path / "__pycache__" / "old.py").write_text("not part of it")
    policy = load_policy(path)
    assert policy.program.name == "model.py:model"
    assert sorted(policy.program.files) == ["helper.py", "model.py"]
    assert policy.program.files["model.py"].decode() == program_policies.MODEL
    assert lint(policy) == []
    assert log_smallest_prior(policy) == pytest.approx(-6.907755279)


def test_the_files_are_part_of_the_revision(tmp_path):
    path = program_policies.write(tmp_path)
    before = load_policy(path)
    assert load_policy(path).revision == before.revision
    (tmp_path / "model.py").write_text(program_policies.MODEL + "# changed\n")
    after = load_policy(path)
    assert after.revision != before.revision
    found = diff(before, after)
    assert found.restarts_guarantee
    assert found.reasons == ("hypotheses: the program's files are others, so it may be another class or prior",)
    assert [change.path for change in found.changes] == ["program files.model.py"]
    (tmp_path / "helper.py").write_text("")
    assert load_policy(path).revision not in (before.revision, after.revision)


def test_a_text_alone_cannot_name_a_program():
    with pytest.raises(PolicyError) as caught:
        parse_policy(program_policies.POLICY)
    (problem,) = caught.value.problems
    assert (problem.line, problem.column) == (8, 10)
    assert "a program is code: it is read only from the folder of a policy file" in problem.message


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("../model.py:model", "needs file.py:function, the file in the policy's folder"),
        ("/etc/model.py:model", "needs file.py:function, the file in the policy's folder"),
        ("a/../model.py:model", "a/../model.py is not a plain path inside the policy's folder"),
        ("model.txt:model", "needs file.py:function"),
        ("model.py", "needs file.py:function"),
        ("other.py:model", "other.py cannot be read: No such file or directory; it must lie in the policy's folder"),
        ("link.py:model", "link.py leads out of the policy's folder by a link; put a copy of the file there"),
        ("folder.py:model", "folder.py is not a file"),
    ],
)
def test_a_model_outside_of_the_folder(tmp_path, model, message):
    folder = tmp_path / "policy"
    path = program_policies.write(folder, ("model.py:model", model))
    (tmp_path / "outside.py").write_text(program_policies.MODEL)
    if model.startswith("link"):
        (folder / "link.py").symlink_to("../outside.py")
    if model.startswith("folder"):
        (folder / "folder.py").mkdir()
    found = problems(path)
    assert any(line.startswith("8: ") and message in line for line in found), found


USE = "{kind: sampled, draws: 1000, seed: 1}"


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (("draws: 1000", "draws: 1700"), "9: 1700 is not a multiple of 1000, the size of a block of draws; use 2000"),
        (("draws: 1000", "draws: 10"), "9: draws is 10; needs a number of at least 1000"),
        ((USE, "{kind: grid, points: {a: 9, b: 9, c: 9, d: 9, e: 9}}"), "9: names 5 latent sites; a grid has 1 to 4"),
        ((USE, "{kind: grid, points: {a: 9999, b: 99999}}"), "9: the grid has 999890001 hypotheses"),
        ((USE, "{kind: grit, points: 3}"), "9: unknown kind 'grit'; did you mean 'grid'?"),
        (
            ("inputs: [{x: 1.0}]", "inputs: [{z: 1.0}]"),
            "10: an example gives every feature and nothing else; this one lacks x",
        ),
        (("inputs: [{x: 1.0}]", "inputs: [{x: [1.0, 2.0]}]"), "10: feature 'x' is a number"),
        (("inputs: [{x: 1.0}]", "lower: 3, upper: 2"), "10: lower 3 is not below upper 2; swap them"),
        (("  use:", "  category: int(context.x)\n  use:"), "the categories are missing"),
        (("  use:", "  categories: [a]\n  use:"), "categories are listed, but no category is given"),
        (
            ("  use:", "  monte_carlo: {samples: 100, delta: 0.05}\n  use:"),
            "is part of the bound's delta 0.05, so it must",
        ),
        (("{kind: ratio, delta: 0.05}", "{kind: ratio, delta: 0.05, running: true}"), None),
        (("name: y,", "name: harm,"), "12: a program's site 'harm' is its harm probability"),
        (("harm: outcome.y > 5.0", "harm: outcome.y == 5.0"), "a number equals a given one with probability zero"),
    ],
)
def test_what_does_not_fit(tmp_path, edit, message):
    path = program_policies.write(tmp_path, edit)
    if message is None:
        load_policy(path)
        return
    found = problems(path)
    assert any(message in line for line in found), found


@pytest.mark.parametrize(
    ("bound", "message"),
    [
        ("{kind: plausible, alpha: 0.001}", "use posterior goes with the kinds ratio and predictive"),
        ("{kind: ratio, delta: 0.05, running: true}", "are not kept, so it needs running: false"),
    ],
)
def test_a_posterior_has_an_estimate_only(tmp_path, bound, message):
    edits = ((USE, "{kind: posterior, method: nuts}"), ("{kind: ratio, delta: 0.05}", bound))
    assert any(message in line for line in problems(program_policies.write(tmp_path, *edits)))
    policy = load_policy(program_policies.write(tmp_path, edits[0]))
    assert [warning.message for warning in lint(policy)] == [
        "the posterior is approximated, so every bound is an estimate; sampled and grid have a theorem"
    ]


def test_only_a_program_may_say_the_harm_itself(tmp_path):
    policy = load_policy(program_policies.write(tmp_path, ("harm: outcome.y > 5.0\n", "")))
    assert policy.harm == ModelHarm()
    table = "family: finite-table\n  table: [{name: a, normal: {mean: 0, sd: 1}}]\n"
    text = program_policies.POLICY[: program_policies.POLICY.index("family:")] + table
    text += program_policies.POLICY[program_policies.POLICY.index("outcome:") :].replace("harm: outcome.y > 5.0\n", "")
    with pytest.raises(PolicyError, match="field 'harm' is missing; add it"):
        parse_policy(text)
