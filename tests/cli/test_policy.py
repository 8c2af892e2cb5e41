import json

import program_policies
import pytest

SUITE = """\
schema: guardrail-suite/v1
cases:
  - name: a fresh world rejects a high throw
    action: {kind: high}
    expect: {decision: reject, reasons: [HARM_BOUND_ABOVE_REJECT]}
  - name: a low throw is accepted
    action: {kind: low}
    expect: {decision: accept, harm_bound: {max: 0.05}}
"""


@pytest.fixture
def folder(tmp_path, policy_file):
    target = tmp_path / "policies" / "coin"
    target.mkdir(parents=True)
    (target / "policy.yaml").write_text(policy_file.read_text())
    (target / "suite.yaml").write_text(SUITE)
    return target


# ---------------------------------------------------------------- lint


def test_a_policy_passes_with_warnings(cli, folder):
    result = cli("policy", "lint", folder, "--json")
    assert result.code == 0
    (file,) = result.json["files"]
    assert list(file) == ["path", "valid", "name", "revision", "errors", "warnings"]
    assert (file["valid"], file["name"], len(file["revision"]), file["errors"]) == (True, "coin", 64, [])
    # context.level is declared and used nowhere.
    assert [list(w) for w in file["warnings"]] == [["path", "line", "column", "message"]]
    assert cli("policy", "lint", "--strict", folder, "--json").code == 1
    text = cli("policy", "lint", folder).out
    assert f"{folder / 'policy.yaml'}:5:3: warning: " in text


def test_every_error_is_told_with_its_place(cli, folder):
    file = folder / "policy.yaml"
    file.write_text(file.read_text().replace("delta: 0.05", "delta: 5").replace("type: bool", "type: boole"))
    result = cli("policy", "lint", folder.parent, "--json")
    assert result.code == 1
    (found,) = result.json["files"]
    assert (found["valid"], found["name"], found["revision"]) == (False, None, None)
    assert len(found["errors"]) >= 2
    text = cli("policy", "lint", file).out.splitlines()
    assert len(text) == len(found["errors"])
    assert all(line.startswith(f"{file}:") and ": error: " in line for line in text)


def test_a_file_that_is_not_there_is_an_error(cli, folder):
    result = cli("policy", "lint", folder / "none.yaml", "--json")
    assert result.code == 1
    assert "cannot be read" in result.json["files"][0]["errors"][0]["message"]


@pytest.mark.parametrize("command", ["lint", "test"])
def test_a_folder_without_policies_is_a_wrong_command_line(cli, tmp_path, command):
    assert cli("policy", command, tmp_path).code == 2


# ---------------------------------------------------------------- test


def test_a_suite_passes_and_says_what_it_does_not_reach(cli, folder):
    result = cli("policy", "test", folder, "--json")
    assert result.code == 0
    (suite,) = result.json["suites"]
    assert list(suite) == [
        "path",
        "policy",
        "passed",
        "cases",
        "unreached_rules",
        "unreached_decisions",
        "unreached_reasons",
        "budget_left_out",
        "errors",
    ]
    assert [c["passed"] for c in suite["cases"]] == [True, True]
    assert suite["unreached_rules"] == ["1: too large", "2: large"]
    assert suite["unreached_decisions"] == ["escalate"]
    text = cli("policy", "test", "--strict", folder)
    assert text.code == 1
    for part in ("ok    a low throw is accepted (accept", "no case reaches rule 1: too large", "2 of 2 cases pass"):
        assert part in text.out


def test_a_failing_case_fails(cli, folder):
    (folder / "suite.yaml").write_text(SUITE.replace("decision: accept", "decision: reject"))
    result = cli("policy", "test", folder)
    assert result.code == 1
    assert "FAIL  a low throw is accepted" in result.out
    assert "decision: expected reject, got accept" in result.out
    assert "1 of 2 cases pass" in result.out


@pytest.mark.parametrize("broken", ["policy.yaml", "suite.yaml"])
def test_a_broken_file_fails_with_its_place(cli, folder, broken):
    (folder / broken).write_text("schema: nothing\n")
    result = cli("policy", "test", folder, "--json")
    assert result.code == 1
    assert result.json["suites"][0]["errors"][0]["path"] == str(folder / broken)
    (folder / broken).unlink()
    assert cli("policy", "test", folder / "policy.yaml").code == 1


# ---------------------------------------------------------------- schema, diff, init


def test_the_schema_is_json(cli):
    assert cli("policy", "schema", "--json").json == json.loads(cli("policy", "schema").out)
    assert cli("policy", "schema", "--json").json["$schema"].startswith("https://json-schema.org/")


def test_a_diff_says_whether_the_guarantee_restarts(cli, folder, policy_file):
    new = folder / "policy.yaml"
    assert cli("policy", "diff", policy_file, new).out == "no change\n"
    new.write_text(new.read_text().replace("delta: 0.05", "delta: 0.01"))
    result = cli("policy", "diff", policy_file, new, "--json")
    assert result.code == 0
    assert result.json["changes"] == [{"path": "bound.delta", "kind": "changed", "old": 0.05, "new": 0.01}]
    assert result.json["restarts_guarantee"] is True
    assert "the guarantee starts anew" in cli("policy", "diff", policy_file, new).out


def test_a_diff_with_a_broken_file_is_no_answer(cli, policy_file, tmp_path):
    broken = tmp_path / "broken.yaml"
    broken.write_text("name: [")
    result = cli("policy", "diff", policy_file, broken)
    assert (result.code, result.out) == (3, "")
    assert result.err.startswith(f"error [POLICY_INVALID]: {broken}:")


def test_init_writes_a_policy_that_passes_its_suite(cli, tmp_path):
    folder = tmp_path / "new"
    result = cli("policy", "init", "my-tool", "--directory", folder, "--json")
    assert result.code == 0
    assert result.json["files"] == [str(folder / name) for name in ("policy.yaml", "suite.yaml", "README.md")]
    assert cli("policy", "lint", "--strict", folder).code == 0
    assert cli("policy", "test", folder).code == 0


def test_init_overwrites_nothing(cli, tmp_path):
    (tmp_path / "suite.yaml").write_text("mine")
    result = cli("policy", "init", "my-tool", "--directory", tmp_path)
    assert result.code == 2
    assert [p.name for p in tmp_path.iterdir()] == ["suite.yaml"]
    assert (tmp_path / "suite.yaml").read_text() == "mine"


@pytest.mark.parametrize("arguments", [["Bad Name"], ["fine", "--family", "nothing"]])
def test_init_refuses_what_it_does_not_know(cli, tmp_path, arguments):
    result = cli("policy", "init", *arguments, "--directory", tmp_path / "new")
    assert result.code == 2
    assert not (tmp_path / "new").exists()


def test_lint_looks_at_what_a_program_says_before_any_data(cli, tmp_path):
    path = program_policies.write(tmp_path / "p", ("{inputs:", "{lower: 0, upper: 9, inputs:"))
    done = cli("policy", "lint", path, "--plot", tmp_path / "prior.png")
    assert done.code == 0, done.out
    assert f"{path}:10:21: warning: " in done.out
    assert "lie outside [0, 9]" in done.out
    assert (tmp_path / "prior.png").stat().st_size > 1_000
    (tmp_path / "p" / "model.py").write_text(
        program_policies.MODEL.replace("dist.Normal(0.0", 'dist.Normal(inputs["x"]')
    )
    done = cli("policy", "lint", path)
    assert done.code == 1
    assert f"{path}:8:10: error: model.py:model draws latent site 'a' from a prior that depends on" in done.out


def test_a_plot_needs_one_program(cli, folder, policy_file, tmp_path):
    for paths in ([policy_file, folder], [policy_file]):
        done = cli("policy", "lint", *paths, "--plot", tmp_path / "prior.png")
        assert done.code == 2
