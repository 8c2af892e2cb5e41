"""`guardrail worlds [show]|outcomes|reset`."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from guardrail.cli.connection import TlsCa, TlsCert, TlsKey, TokenFile, connect
from guardrail.cli.console import (
    DEFAULT_DEADLINE,
    DEFAULT_TARGET,
    AsJson,
    Deadline,
    ExitCode,
    StoreUrl,
    Target,
    emit,
    errors,
    text_console,
)
from guardrail.cli.detail import print_detail, print_outcome
from guardrail.cli.verdict import Line, guarantee_lines, posterior_lines, print_lines

if TYPE_CHECKING:
    from guardrail.client.results import AwaitedOutcomes, CalibrationState, WorldEntry, WorldState


class _ShowUnlessNamed(TyperGroup):
    """`guardrail worlds`, and `guardrail worlds WORLD`, show; a world called as a command needs `show` before it."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        first = args[0] if args else ""
        return super().parse_args(ctx, args if first in ("--help", *self.commands) else ["show", *args])


app = typer.Typer(
    name="worlds",
    help="List worlds, show what one believes and by which outcomes, or reset one. Without a command: show.",
    cls=_ShowUnlessNamed,
    epilog="Example: guardrail worlds pad-39 --policy oring-launch",
)


@app.command(epilog="Example: guardrail worlds show pad-39 --policy oring-launch")
def show(
    world: Annotated[str | None, typer.Argument(metavar="[WORLD]", help="Show the posterior of this one.")] = None,
    policy: Annotated[
        str | None, typer.Option(metavar="NAME", help="Only worlds of this policy; required with WORLD.")
    ] = None,
    hypotheses: Annotated[
        int,
        typer.Option(
            min=0,
            max=1_000,
            metavar="N",
            help="Tell of at most so many of the most probable hypotheses, or of the parameters of a continuous class.",
        ),
    ] = 0,
    target: Target = DEFAULT_TARGET,
    deadline: Deadline = DEFAULT_DEADLINE,
    token_file: TokenFile = None,
    tls_ca: TlsCa = None,
    tls_cert: TlsCert = None,
    tls_key: TlsKey = None,
    as_json: AsJson = False,
) -> None:
    """List the worlds that hold observations, were reset or owe outcomes, or show what one of them believes."""
    if world is not None and policy is None:
        raise typer.BadParameter("say which policy's world: --policy NAME")
    if hypotheses and world is None:
        raise typer.BadParameter("say of which world: --hypotheses tells of one")
    with errors(as_json), connect(target, deadline, token_file, tls_ca, tls_cert, tls_key) as client:
        if world is not None and policy is not None:
            _show(client.world(policy, world, hypotheses=hypotheses), as_json=as_json)
        else:
            _list(list(client.worlds(policy)), as_json=as_json)


@app.command(epilog="Example: guardrail worlds outcomes oring-launch pad-39 --store var/guardrail.db --last 20")
def outcomes(
    policy: Annotated[str, typer.Argument(metavar="POLICY", help="Name of the policy.")],
    world: Annotated[str, typer.Argument(metavar="WORLD", help="Id of the world.")],
    store: StoreUrl,
    until: Annotated[
        int | None, typer.Option(min=0, metavar="N", help="Only the first so many: those that a decision rests on.")
    ] = None,
    last: Annotated[int | None, typer.Option(min=1, metavar="N", help="Of these only the last so many.")] = None,
    generation: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Of this log of the world, instead of the present one.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List the outcomes that a world's posterior rests on, from the store itself, which is only read.

    Their numbers are those that verdicts count in. --json prints one object a line.
    """
    with errors(as_json):
        from guardrail.errors import WorldNotFound
        from guardrail.store import open_store

        opened = open_store(store, read_only=True)
        try:
            end = opened.observation_count(policy, world, generation)
            if not end:
                raise WorldNotFound(f"policy {policy!r} has no world {world!r} that holds observations in that store")
            end = end if until is None else min(end, until)
            first = 0 if last is None else max(end - last, 0)
            rows = opened.observations(policy, world, first, generation)
            for one in islice(rows, end - first):
                print_outcome(one, as_json=as_json)
        finally:
            opened.close()


@app.command(epilog="Example: guardrail worlds reset oring-launch pad-39 --reason 'the sensor was replaced'")
def reset(
    policy: Annotated[str, typer.Argument(metavar="POLICY", help="Name of the policy.")],
    world: Annotated[str, typer.Argument(metavar="WORLD", help="Id of the world.")],
    reason: Annotated[str, typer.Option(metavar="TEXT", help="Why; it is kept with the closed log.")],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    target: Target = DEFAULT_TARGET,
    deadline: Deadline = DEFAULT_DEADLINE,
    token_file: TokenFile = None,
    tls_ca: TlsCa = None,
    tls_cert: TlsCert = None,
    tls_key: TlsKey = None,
    as_json: AsJson = False,
) -> None:
    """Close the log of a world and start a new one from the prior, with a guarantee of its own.

    The closed log is kept and never counts again. Each generation has a delta of its own, and they add up: a reset
    is for a world that has changed or is refuted, not for a bound that is too high.

    Exit status: 0 if the world was reset, 1 if you said no.
    """
    with errors(as_json), connect(target, deadline, token_file, tls_ca, tls_cert, tls_key) as client:
        from guardrail.errors import WorldNotFound

        # Not `client.world`: what is reset is often a world whose posterior cannot be shown.
        found = next((entry for entry in client.worlds(policy) if entry.world == world), None)
        if found is None:
            raise WorldNotFound(f"policy {policy!r} has no world {world!r} that holds observations")
        what = f"{found.observations} observations of world {world} of policy {policy} (generation {found.generation})"
        if not yes and not typer.confirm(f"Close the log with {what}?", err=True):
            raise typer.Exit(ExitCode.NO)
        done = client.reset_world(policy, world, generation=found.generation, reason=reason)
    if as_json:
        emit(done)
        return
    typer.echo(f"generation {done.generation} starts; {done.closed_observations} observations are in the closed log")


def _show(state: WorldState, *, as_json: bool) -> None:
    if as_json:
        emit(state)
        return
    console = text_console()
    console.print(f"{state.policy}, world {state.world}", style="bold")
    revision = ("policy revision", state.policy_revision)
    generation = [] if state.generation == 1 else [("generation", str(state.generation))]
    promises = [*guarantee_lines(state.guarantee), *calibration_lines(state.calibration)]
    awaited = [] if state.awaited is None else awaited_lines(state.awaited)
    print_lines(console, [*posterior_lines(state.posterior), *awaited, *promises, *generation, revision])
    print_detail(console, state.posterior.detail)


def calibration_lines(found: CalibrationState | None) -> list[tuple[str, str]]:
    """Promises against what came of them; nothing while no report can be compared."""
    if found is None:
        return []
    told = "ALARM: harm is more frequent than the bounds allow" if found.alarm else "no alarm"
    evidence = f"log e-value {found.log_e_value:.4g}, largest {found.log_e_peak:.4g}, alarm at {found.log_e_alarm:.4g}"
    lines = [
        (
            "outcomes",
            f"{found.outcomes} under decisions' ids, harm in {found.harms}; bounds add up to {found.bounds:.4g}",
        ),
        ("evidence", evidence),
        ("", told),
    ]
    if found.predicted is not None:
        interval = f"mean harm within [{found.harm_low:.4g}, {found.harm_high:.4g}]"
        lines.append(("predicted", f"mean harm {found.predicted:.4g}; by the outcomes {interval}"))
    return lines


def awaited_lines(awaited: AwaitedOutcomes) -> list[Line]:
    """The outcomes that accepted actions owe."""
    lines = [("outcomes awaited", f"{awaited.awaited}, each within {awaited.within:g} s of its decision")]
    if awaited.overdue:
        since = "" if awaited.oldest_due is None else f" since {awaited.oldest_due.isoformat(timespec='seconds')}"
        lines.append(("outcomes overdue", f"{awaited.overdue}{since} ({awaited.overdue_action})"))
        more = awaited.overdue - len(awaited.overdue_decisions)
        shown = [*awaited.overdue_decisions, *([f"and {more} more"] if more > 0 else [])]
        lines += [("of decisions" if i == 0 else "", decision) for i, decision in enumerate(shown)]
    if awaited.assumed_harms:
        lines.append(("taken for harm", f"{awaited.assumed_harms} outcomes that nobody reported in time"))
    return lines


def _list(entries: list[WorldEntry], *, as_json: bool) -> None:
    if as_json:
        emit({"worlds": entries})
        return
    if not entries:
        typer.echo("no world holds an observation", err=True)
    width = max((len(entry.policy) for entry in entries), default=0)
    for entry in entries:
        generation = "" if entry.generation == 1 else f"  (generation {entry.generation})"
        typer.echo(f"{entry.policy:<{width}}  {entry.observations:>9}  {entry.world}{generation}")
