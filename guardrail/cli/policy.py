"""`guardrail policy lint|test|schema|diff|compare|init|reload`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from guardrail.cli import compare, init
from guardrail.cli.connection import TlsCa, TlsCert, TlsKey, TokenFile, connect
from guardrail.cli.console import (
    DEFAULT_TARGET,
    AsJson,
    Deadline,
    ExitCode,
    Target,
    emit,
    errors,
    problem_to_dict,
    progress_console,
)
from guardrail.errors import PolicyError

if TYPE_CHECKING:
    from collections.abc import Sequence

app = typer.Typer(rich_markup_mode="markdown", no_args_is_help=True, help="Write, check and test policy files.")

POLICY_FILE = "policy.yaml"
SUITE_FILE = "suite.yaml"

PolicyPaths = Annotated[
    list[Path],
    typer.Argument(metavar="PATH...", help="Policy files, or folders that hold policy.yaml or */policy.yaml."),
]


@app.command(epilog="Example: guardrail policy lint policies")
def lint(
    paths: PolicyPaths,
    strict: Annotated[bool, typer.Option("--strict", help="Warnings fail too.")] = False,
    plot: Annotated[
        Path | None,
        typer.Option("--plot", metavar="FILE", help="Draw what a program's prior says of outcomes and harm, as PNG."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Check policy files: every error as file:line:column, and warnings about what is valid but doubtful.

    A program is loaded in a process of its own, and what it says before any data is checked: log-likelihoods are
    finite, outcomes plausible, harms in [0, 1], and the same seed gives the same numbers.

    Exit status: 0 if every file is a policy, 1 if not.
    """
    files = policy_files(paths)
    if plot is not None and len(files) != 1:
        raise typer.BadParameter("--plot takes one policy", param_hint="--plot")
    with errors(as_json):
        results = [_lint(path, plot) for path in files]
    failed = any(not r["valid"] or (strict and r["warnings"]) for r in results)
    if as_json:
        emit({"files": results})
    else:
        for result in results:
            for kind in ("errors", "warnings"):
                for p in result[kind]:
                    typer.echo(f"{p['path']}:{p['line']}:{p['column']}: {kind[:-1]}: {p['message']}")
            if result["valid"]:
                typer.echo(f"{result['path']}: {result['name']} at revision {result['revision'][:12]}")
    raise typer.Exit(ExitCode.NO if failed else ExitCode.OK)


@app.command(epilog="Example: guardrail policy schema > guardrail-policy.json")
def schema(as_json: AsJson = False) -> None:
    """Print the JSON Schema, with which editors complete and check policy files."""
    from guardrail.policy.schema import json_schema

    if as_json:
        emit(json_schema())
    else:
        typer.echo(json.dumps(json_schema(), indent=2))


@app.command(epilog="Example: guardrail policy diff policies/oring-launch/policy.yaml proposed.yaml")
def diff(
    old: Annotated[Path, typer.Argument(metavar="OLD", help="A policy file.")],
    new: Annotated[Path, typer.Argument(metavar="NEW", help="A policy file.")],
    as_json: AsJson = False,
) -> None:
    """Say what changes from one policy to another, and whether the guarantee starts anew."""
    from guardrail.policy import load_policy
    from guardrail.policy.diff import diff as changes

    with errors(as_json):
        found = changes(load_policy(old), load_policy(new))
    if as_json:
        emit(found.to_dict())
    else:
        typer.echo(str(found))


@app.command("test", epilog="Example: guardrail policy test policies")
def run_suites(
    paths: PolicyPaths,
    strict: Annotated[
        bool, typer.Option("--strict", help="Rules and decisions that no case reaches fail too.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Run the suite.yaml beside each policy: does every case get the decision that its author expects?

    Also says which rules, decisions and reasons no case reaches. Exit status: 0 if every case passes, 1 if not.
    """
    files = policy_files(paths)
    console = progress_console()
    results = []
    for place, file in enumerate(files):
        with console.status(f"testing {file} ({place + 1} of {len(files)})"):
            results.append(_run_suite(file))
        if not as_json:
            _print_suite(results[-1])
    failed = any(not r["passed"] or (strict and (r["unreached_rules"] or r["unreached_decisions"])) for r in results)
    if as_json:
        emit({"suites": results})
    raise typer.Exit(ExitCode.NO if failed else ExitCode.OK)


def _run_suite(path: Path) -> dict[str, Any]:
    from guardrail.policy import load_policy
    from guardrail.policy.suite import run_suite

    try:
        report = run_suite(load_policy(path), path.with_name(SUITE_FILE)).to_dict()
        return {"path": str(path), **report, "errors": []}
    except PolicyError as error:
        found = [problem_to_dict(p) for p in error.problems]
        unreached: dict[str, Any] = {f"unreached_{what}": [] for what in ("rules", "decisions", "reasons")}
        return {"path": str(path), "policy": None, "passed": False, "cases": [], **unreached, "errors": found}


def _print_suite(result: dict[str, Any]) -> None:
    for p in result["errors"]:
        typer.echo(f"{p['path']}:{p['line']}:{p['column']}: error: {p['message']}")
    for case in result["cases"]:
        bound = "" if case["harm_bound"] is None else f", harm bound {case['harm_bound']:.4g}"
        typer.echo(f"{'ok  ' if case['passed'] else 'FAIL'}  {case['name']} ({case['decision']}{bound})")
        for failure in case["failures"]:
            typer.echo(f"      {failure}")
    for what in ("rules", "decisions", "reasons"):
        for unreached in result[f"unreached_{what}"]:
            typer.echo(f"no case reaches {what[:-1]} {unreached}")
    passed = sum(case["passed"] for case in result["cases"])
    typer.echo(f"{result['path']}: {passed} of {len(result['cases'])} cases pass")


app.command(epilog="Example: guardrail policy compare logged proposed.yaml --log var/guardrail.db")(compare.compare)
app.command(epilog="Example: guardrail policy init my-tool --family beta-bernoulli")(init.init)


@app.command(epilog="Example: guardrail policy reload")
def reload(
    target: Target = DEFAULT_TARGET,
    deadline: Deadline = 60.0,
    token_file: TokenFile = None,
    tls_ca: TlsCa = None,
    tls_cert: TlsCert = None,
    tls_key: TlsKey = None,
    as_json: AsJson = False,
) -> None:
    """Let the service read its policy files again: all of them are loaded, or none if any is wrong.

    A policy whose revision changed starts a new guarantee, and its worlds are replayed from their
    logs. Worlds that could not answer are rebuilt.
    """
    with errors(as_json), connect(target, deadline, token_file, tls_ca, tls_cert, tls_key) as client:
        answer = client.reload_policies()
    if as_json:
        policies = [{"name": p.name, "revision": p.revision} for p in answer.policies]
        emit({"policies": policies, "changed": list(answer.changed)})
        return
    for policy in answer.policies:
        note = "changed: a new guarantee starts" if policy.name in answer.changed else "as before"
        typer.echo(f"{policy.name} at revision {policy.revision[:12]}, {note}")
    for name in set(answer.changed) - {p.name for p in answer.policies}:
        typer.echo(f"{name} is gone")


def _lint(path: Path, plot: Path | None) -> dict[str, Any]:
    from guardrail.policy import load_policy
    from guardrail.policy.lint import lint as warnings_of

    try:
        policy = load_policy(path)
    except PolicyError as error:
        found = [problem_to_dict(p) for p in error.problems]
        return {"path": str(path), "valid": False, "name": None, "revision": None, "errors": found, "warnings": []}
    wrong, doubtful = [], warnings_of(policy)
    if policy.program is not None:
        from guardrail.programs import lint as programs

        prior = programs.check(policy)
        wrong, doubtful = prior.errors, [*doubtful, *prior.warnings]
        if plot is not None and prior.drawn:
            programs.plot(policy, prior.drawn, plot)
    elif plot is not None:
        raise typer.BadParameter(f"{policy.name} has no program whose prior could be drawn", param_hint="--plot")
    return {
        "path": str(path),
        "valid": not wrong,
        "name": policy.name,
        "revision": policy.revision,
        "errors": [problem_to_dict(p) for p in wrong],
        "warnings": [problem_to_dict(p) for p in doubtful],
    }


def policy_files(paths: Sequence[Path]) -> list[Path]:
    """The policy files that the paths stand for.

    :raises typer.BadParameter: if a folder holds none.
    """
    files: list[Path] = []
    for path in paths:
        found = sorted(path.glob(POLICY_FILE)) + sorted(path.glob(f"*/{POLICY_FILE}")) if path.is_dir() else [path]
        if not found:
            raise typer.BadParameter(f"{path} holds no {POLICY_FILE} and no */{POLICY_FILE}")
        files.extend(found)
    return files
