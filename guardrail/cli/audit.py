"""`guardrail audit verify|head|export`."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from guardrail.cli.console import AsJson, ExitCode, StoreUrl, emit, errors, text_console
from guardrail.cli.progress import counted

if TYPE_CHECKING:
    from guardrail.audit import Audit

SHOWN = 20
"""Findings that are shown to people; --json has up to a thousand."""

app = typer.Typer(
    name="audit",
    help="Whether the decision log is what was written: verify it, keep its heads elsewhere, take it out.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
)


@app.command(epilog="Example: guardrail audit verify --store var/guardrail.db --public-key signing-public.pem")
def verify(
    store: Annotated[
        str | None,
        typer.Option(
            metavar="PATH|URL", envvar="GUARDRAIL_STORE", show_envvar=True, help="The store, which is only read."
        ),
    ] = None,
    file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="An export to verify instead, without the store.")
    ] = None,
    public_key: Annotated[
        list[Path] | None,
        typer.Option(metavar="FILE", help="Every chain must be signed by this key, PEM, or another given. Repeatable."),
    ] = None,
    anchor: Annotated[
        list[Path] | None,
        typer.Option(metavar="FILE", help="What `guardrail audit head` told before, kept elsewhere. Repeatable."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Follow the chains over the decision log and say what was edited, cut, exchanged, put in or is not signed.

    A service may be writing meanwhile. Without --public-key whoever can write to the store can make up a whole chain,
    and without --anchor cut its end off; what was not asked for is said.

    Exit status: 0 if the log is whole, 1 if anything was found, 3 if it cannot be read.
    """
    if file is None and store is None:
        raise typer.BadParameter("say what to verify: --store PATH|URL or --file FILE")
    with errors(as_json):
        from guardrail.audit import Audit, Unchained
        from guardrail.audit_files import ExportedLog, read_anchors
        from guardrail.receipts import public_bytes
        from guardrail.signing import read_public_key
        from guardrail.store import open_store

        keys = [public_bytes(read_public_key(path)) for path in public_key or ()]
        told = [read_anchors(path) for path in anchor or ()]
        # A head that says nothing of records from before chains says that there were none.
        unchained = [one for _, times in told for one in times or [Unchained()]]
        exported = None if file is None else ExportedLog(file)
        opened = None if exported is not None or store is None else open_store(store, read_only=True)
        log: Any = exported if exported is not None else opened
        try:
            audit = Audit(log.chains, keys=keys, anchors=[a for one, _ in told for a in one], unchained=unchained)
            for receipt in counted(log.receipts(), "records followed"):
                audit.take(receipt)
            audit.finish()
        finally:
            if opened is not None:
                opened.close()
    _tell(audit, keys=bool(keys), anchored=bool(told), as_json=as_json)
    raise typer.Exit(ExitCode.NO if audit.counts else ExitCode.OK)


@app.command(epilog="Example: guardrail audit head --store var/guardrail.db >> /mnt/elsewhere/heads.jsonl")
def head(store: StoreUrl, as_json: AsJson = False) -> None:
    """Tell where each chain ends, a line of JSON each: with what was kept elsewhere a later verify finds a cut end.

    The store is only read. --json changes errors only: the lines are JSON anyway.
    """
    with errors(as_json):
        from guardrail.audit_files import head_lines
        from guardrail.store import open_store

        opened = open_store(store, read_only=True)
        try:
            for line in head_lines(opened):
                emit(line)
        finally:
            opened.close()


@app.command(epilog="Example: guardrail audit export --store var/guardrail.db --world pad-39 decisions.jsonl")
def export(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Where to write it; a new file.")],
    store: StoreUrl,
    policy: Annotated[str | None, typer.Option(metavar="NAME", help="Only decisions of this policy.")] = None,
    world: Annotated[str | None, typer.Option(metavar="ID", help="Only decisions of this world.")] = None,
    as_json: AsJson = False,
) -> None:
    """Write decisions with their receipts to a file that `guardrail audit verify --file` checks without the store.

    Of decisions that were not asked for it holds the digests, so that the chains can still be followed. The file is
    readable by its owner only.
    """
    written = 0
    with errors(as_json):
        from guardrail.audit_files import export_lines
        from guardrail.errors import StoreError
        from guardrail.store import open_store

        opened = open_store(store, read_only=True)
        try:
            descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            try:
                with open(descriptor, "w") as out:
                    for line in counted(export_lines(opened, policy, world), "lines written"):
                        written += "record" in line
                        out.write(json.dumps(line, separators=(",", ":")) + "\n")
            except BaseException:
                file.unlink(missing_ok=True)
                raise
        except OSError as error:
            raise StoreError(f"{file}: cannot be written: {error.strerror}") from error
        finally:
            opened.close()
    if as_json:
        emit({"file": str(file), "decisions": written})
    else:
        typer.echo(f"{written} decisions written to {file}")


def _tell(audit: Audit, *, keys: bool, anchored: bool, as_json: bool) -> None:
    notes = list(_not_checked(audit, keys=keys, anchored=anchored))
    if as_json:
        counted_by = {"records": audit.records, "chains": audit.chains, "unsigned_chains": audit.unsigned}
        counted_by |= {"unchained": audit.unchained.records, "without_content": audit.absent}
        emit({**counted_by, "counts": audit.counts, "findings": audit.findings, "not_checked": notes})
        return
    console = text_console()
    for finding in audit.findings[:SHOWN]:
        where = f"  chain {finding.chain}" if finding.chain else ""
        where += f", position {finding.position}" if finding.position else ""
        where += f"  decision {finding.decision_id}" if finding.decision_id else ""
        console.print(f"{finding.code}{where}: {finding.message}")
    total = audit.counts.total()
    if total > SHOWN:
        console.print(f"... and {total - SHOWN} more")
    for note in notes:
        console.print(f"not checked: {note}")
    found = ", ".join(f"{count} {code}" for code, count in sorted(audit.counts.items())) or "nothing found"
    console.print(f"{audit.records} records in {audit.chains} chains: {found}")


def _not_checked(audit: Audit, *, keys: bool, anchored: bool) -> list[str]:
    notes = []
    if not keys:
        unsigned = f"{audit.unsigned} of {audit.chains} chains are not signed, and " if audit.unsigned else ""
        notes.append(f"{unsigned}without --public-key anybody who can write to the store can make up a whole chain")
    if not anchored:
        notes.append("without --anchor an end that was cut off together with the chain's own row is not found")
    else:
        notes.append(
            f"whether anything was cut off after the anchors, where {audit.beyond_anchors} of the present records stand"
        )
    if audit.absent:
        notes.append(f"the content of {audit.absent} records, of which the file holds the digests only")
    return notes
