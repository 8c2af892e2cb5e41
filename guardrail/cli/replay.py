"""`guardrail replay`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from guardrail.cli.console import (
    AsJson,
    ExitCode,
    StoreUrl,
    emit,
    errors,
    report_error,
    text_console,
)
from guardrail.cli.policy import policy_files
from guardrail.cli.progress import counted

if TYPE_CHECKING:
    from guardrail.errors import StoreCorrupt
    from guardrail.replay import Replayed


def replay(
    store: StoreUrl,
    policy: Annotated[str | None, typer.Option(metavar="NAME", help="Only decisions of this policy.")] = None,
    world: Annotated[str | None, typer.Option(metavar="ID", help="Only decisions of this world.")] = None,
    policies: Annotated[
        list[Path] | None,
        typer.Option(metavar="PATH", help="Policy files or folders, for policies with programs. Repeatable."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Recompute every logged decision from the logs and report those that differ; there must be none.

    A decision differs if its decision, its reason codes, what its guarantee promises, or a number beyond
    1e-9 is not what policy document, observation log and request give. The store is only read;
    a service may be writing to it. It does not hold programs: give the files of their policies with --policies.

    Exit status: 0 if every decision is reproduced, 1 if any differs or the log is damaged.
    """
    from guardrail.errors import StoreCorrupt

    tally = _Tally(as_json=as_json)
    damage: StoreCorrupt | None = None
    with errors(as_json):
        from guardrail.policy import load_policy
        from guardrail.replay import replay as recompute
        from guardrail.store import open_store

        opened = open_store(store, read_only=True)
        try:
            given = [load_policy(path) for path in policy_files(policies or [])]
            for replayed in counted(
                recompute(opened, policy=policy, world=world, policies=given), "decisions recomputed"
            ):
                tally.add(replayed)
        except StoreCorrupt as error:
            damage = error
        finally:
            opened.close()
    tally.finish(damage)
    if damage is not None:
        report_error(damage, as_json=as_json)
    raise typer.Exit(ExitCode.NO if tally.differing or damage is not None else ExitCode.OK)


class _Tally:
    """Counts decisions, and shows the differing ones as they come, or keeps them for the JSON."""

    def __init__(self, *, as_json: bool) -> None:
        self._as_json = as_json
        self._kept: list[dict[str, Any]] = []
        self.decisions = 0
        self.differing = 0

    def add(self, replayed: Replayed) -> None:
        self.decisions += 1
        if not replayed.differences:
            return
        self.differing += 1
        record = replayed.record
        if self._as_json:
            names = ("decision_id", "policy", "policy_revision", "world", "posterior_revision")
            self._kept.append({**{name: getattr(record, name) for name in names}, "differences": replayed.differences})
            return
        console = text_console()
        console.print(
            f"{record.decision_id}  {record.policy}, world {record.world}, {record.posterior_revision} observations"
        )
        for d in replayed.differences:
            console.print(f"  {d.field}: logged {d.logged!r}, recomputed {d.recomputed!r}")

    def finish(self, damage: StoreCorrupt | None) -> None:
        if self._as_json:
            body = None if damage is None else {"reason": damage.reason, "message": str(damage)}
            emit({"decisions": self.decisions, "differing": self._kept, "damage": body})
            return
        verb = "differs" if self.differing == 1 else "differ"
        text_console().print(f"{self.decisions} decisions recomputed, {self.differing or 'none'} {verb}")


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command(epilog="Example: guardrail replay --store var/guardrail.db")(replay)
