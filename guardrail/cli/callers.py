"""`guardrail callers`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from guardrail.cli.console import AsJson, ExitCode, emit, problem_to_dict

if TYPE_CHECKING:
    from guardrail.server.security.callers_file import Callers, Entry

app = typer.Typer(help="Who may do what.", no_args_is_help=True, rich_markup_mode="markdown")


@app.callback()
def callers() -> None:
    """Who may do what."""


@app.command(epilog="Example: guardrail callers check callers.yaml")
def check(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A callers file.")],
    as_json: AsJson = False,
) -> None:
    """Read a callers file, and the keys that it names, and say who may do what.

    Exit status: 0 if the service would take it, 1 if anything is wrong with it.
    """
    from guardrail.errors import SecurityInvalid
    from guardrail.server.security.callers_file import read_callers
    from guardrail.server.security.key_set import read_key_set

    found: Callers | None = None
    try:
        found = read_callers(file)
        if found.jwt is not None:
            read_key_set(found.jwt.keys)
    except SecurityInvalid as error:
        if as_json:
            problems = [problem_to_dict(p) for p in error.problems]
            emit({"path": str(file), "valid": False, "error": str(error), "problems": problems, "callers": []})
        else:
            typer.echo(str(error))
        raise typer.Exit(ExitCode.NO) from error
    described = [_described(entry) for entry in found.entries]
    if as_json:
        emit({"path": str(file), "valid": True, "error": None, "problems": [], "callers": described})
        return
    for caller in described:
        typer.echo(f"{caller['name']}, known by {', '.join(caller['known_by'])}")
        for grant in caller["grants"]:
            where = f"policies {' '.join(grant['policies'])}, worlds {' '.join(grant['worlds'])}"
            typer.echo(f"  {' '.join(grant['roles'])} of {where}: {', '.join(grant['calls'])}")
        for name, value in caller["limits"].items():
            if value is not None:
                typer.echo(f"  at most {value:g} {name.replace('_', ' ')}")
    typer.echo(f"{file}: {len(described)} callers")


def _described(entry: Entry) -> dict[str, Any]:
    from guardrail.server.security.grants import RULES, Scope

    caller, grants = entry.caller, []
    for grant in sorted(caller.grants, key=lambda g: (sorted(g.roles), g.policies, g.worlds)):
        calls = [
            name
            for name, rule in RULES.items()
            if rule.roles & grant.roles and (rule.scope is not Scope.EVERYTHING or grant.covers_everything)
        ]
        grants.append(
            {
                "roles": sorted(grant.roles),
                "policies": list(grant.policies),
                "worlds": list(grant.worlds),
                "calls": calls,
            }
        )
    known_by = [f"{len(entry.hashes)} key{'s' if len(entry.hashes) > 1 else ''}"] if entry.hashes else []
    known_by += ["tokens with " + " ".join(f"{n}={v}" for n, v in entry.claims)] if entry.claims else []
    known_by += [f"certificate {entry.certificate}"] if entry.certificate is not None else []
    limits = {
        "requests_per_second": caller.rate.per_second if caller.rate else None,
        "requests_at_once": caller.rate.burst if caller.rate else None,
        "worlds": caller.max_worlds,
    }
    return {"name": caller.name, "known_by": known_by, "grants": grants, "limits": limits}
