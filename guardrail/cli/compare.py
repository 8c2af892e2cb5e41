"""`guardrail policy compare`."""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from guardrail.cli.console import AsJson, ExitCode, LogUrl, emit, errors, jsonable, report_error, text_console
from guardrail.cli.progress import counted
from guardrail.domain import Decision

if TYPE_CHECKING:
    from collections.abc import Iterator

    from guardrail.comparison import Compared, Doubt
    from guardrail.domain import Verdict
    from guardrail.errors import StoreCorrupt
    from guardrail.policy import Policy

LOGGED = "logged"
"""In place of OLD: the verdicts as they were logged."""


def compare(
    old: Annotated[str, typer.Argument(metavar="OLD", help=f"A policy file, or `{LOGGED}`: the verdicts of the log.")],
    new: Annotated[Path, typer.Argument(metavar="NEW", help="The candidate: a policy file.")],
    log: LogUrl,
    world: Annotated[str | None, typer.Option(metavar="ID", help="Only decisions of this world.")] = None,
    show_all: Annotated[bool, typer.Option("--all", help="List every flip and every doubt.")] = False,
    plot: Annotated[
        Path | None, typer.Option("--plot", metavar="FILE", help="Draw old bounds against new ones, as PNG.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Replay recorded decisions through a candidate policy: which of them would have been others?

    Both policies judge each logged question from posteriors over the same observations. Decisions that OLD does not
    accept and NEW does come first, in full. What cannot be compared (a field that NEW does not know, an observation
    that does not fit it) is a doubt and never counts as agreement. With --json one object a line, the summary last.

    Exit status: 0 if nothing is loosened and nothing is in doubt, 1 otherwise or if the log is damaged.
    """
    from guardrail.errors import StoreCorrupt

    damage: StoreCorrupt | None = None
    with errors(as_json):
        from guardrail.comparison import compare as compared
        from guardrail.policy import load_policy
        from guardrail.store import open_store

        before, after = None if old == LOGGED else load_policy(old), load_policy(new)
        picture = None
        if plot is not None:
            from guardrail.figures.comparison import ComparisonPicture

            picture = ComparisonPicture(after.name, "as logged" if before is None else "OLD", "NEW")
        opened = open_store(log, read_only=True)
        with _Report(before, after, as_json=as_json, show_all=show_all) as report:
            try:
                for one in counted(compared(opened, before, after, world=world), "decisions compared"):
                    report.add(one)
                    if picture is not None:
                        picture.add(one)
            except StoreCorrupt as error:
                damage = error
            finally:
                opened.close()
            report.finish(damage)
    if picture is not None and plot is not None:
        try:
            picture.save(plot)
        except OSError as error:
            raise typer.BadParameter(f"{plot} cannot be written: {error}", param_hint="--plot") from error
    if damage is not None:
        report_error(damage, as_json=as_json)
    raise typer.Exit(ExitCode.NO if report.wanting or damage is not None else ExitCode.OK)


class _Report:
    """Counts decisions and prints them: what is loosened as it comes, the rest at the end."""

    def __init__(self, old: Policy | None, new: Policy, *, as_json: bool, show_all: bool) -> None:
        self._policy, self._old_revision, self._new_revision = new.name, old.revision if old else None, new.revision
        self._as_json, self._show_all = as_json, show_all
        self._table: Counter[tuple[Decision, Decision]] = Counter()
        self._doubts: Counter[tuple[str, str]] = Counter()
        self._examples: dict[tuple[str, str], tuple[str, str]] = {}
        self._loosened = self._own = 0

    def __enter__(self) -> _Report:
        # On disk, not in memory: a log may hold millions of flips.
        self._later = tempfile.TemporaryFile("w+", encoding="utf-8")
        return self

    def __exit__(self, *_: object) -> None:
        self._later.close()

    @property
    def wanting(self) -> bool:
        """True if something is loosened or in doubt."""
        return bool(self._loosened or self._doubts)

    def add(self, one: Compared) -> None:
        """Count one decision, and print it if it is loosened."""
        self._own += one.record.policy_revision == self._new_revision
        if one.doubt is not None:
            self._doubt(one, one.doubt)
        elif one.old is not None and one.new is not None:
            self._table[one.old.decision, one.new.decision] += 1
            self._loosened += one.loosens
            if self._as_json and one.flips and (one.loosens or self._show_all):
                emit({"kind": "flip", "loosens": one.loosens, **_asked(one), **_sides(one.old, one.new)})
            elif one.flips:
                lines = _flip_lines(one, one.old, one.new)
                if one.loosens:
                    text_console().print("\n".join(lines))
                elif self._show_all:
                    self._later.writelines(f"{line}\n" for line in lines)

    def _doubt(self, one: Compared, doubt: Doubt) -> None:
        key = doubt.side, doubt.code
        self._doubts[key] += 1
        self._examples.setdefault(key, (one.record.decision_id, doubt.message))
        if self._as_json:
            emit({"kind": "doubt", **_asked(one), "side": doubt.side, "code": doubt.code, "message": doubt.message})
        elif self._show_all:
            self._later.write(f"IN DOUBT  {_where(one)}\n  {_sided(*key)}: {doubt.message}\n")

    def finish(self, damage: StoreCorrupt | None) -> None:
        """Print the rest and the counts."""
        from guardrail.comparison import CAVEAT

        if self._as_json:
            emit(self._summary(damage, CAVEAT))
            return
        console = text_console()
        self._later.seek(0)
        for line in self._later:
            console.print(line, end="")
        for line in (*self._table_lines(), *self._doubt_lines(), *self._closing_lines(CAVEAT)):
            console.print(line)

    def _summary(self, damage: StoreCorrupt | None, caveat: str) -> dict[str, Any]:
        doubts = [{"side": s, "code": c, "decisions": n} for (s, c), n in sorted(self._doubts.items())]
        return {
            "kind": "summary",
            "policy": self._policy,
            "old_revision": self._old_revision,
            "new_revision": self._new_revision,
            "decisions": self._table.total() + self._doubts.total(),
            "from_to": {str(a): {str(b): self._table[a, b] for b in Decision} for a in Decision},
            "loosened": self._loosened,
            "in_doubt": self._doubts.total(),
            "doubts": doubts,
            "decided_under_new": self._own,
            "caveat": caveat,
            "damage": None if damage is None else {"reason": damage.reason, "message": str(damage)},
        }

    def _table_lines(self) -> Iterator[str]:
        yield f"{'old / new':<12}" + "".join(f"{decision.value:>12}" for decision in Decision)
        for before in Decision:
            yield f"{before.value:<12}" + "".join(f"{self._table[before, after]:>12}" for after in Decision)

    def _doubt_lines(self) -> Iterator[str]:
        for key, count in sorted(self._doubts.items()):
            decision_id, message = self._examples[key]
            yield f"{count} in doubt, {_sided(*key)}: for instance {decision_id}: {message}"

    def _closing_lines(self, caveat: str) -> Iterator[str]:
        total = self._table.total() + self._doubts.total()
        yield f"{total} decisions, {self._loosened or 'none'} loosened, {self._doubts.total() or 'none'} in doubt"
        if self._own:
            yield f"{self._own} of them were made under NEW itself"
        yield caveat


def _asked(one: Compared) -> dict[str, Any]:
    record = one.record
    names = ("decision_id", "world", "policy_revision", "posterior_revision")
    return {**{name: getattr(record, name) for name in names}, "context": one.context, "action": one.action}


def _sides(old: Verdict, new: Verdict) -> dict[str, Any]:
    names = ("decision", "harm_bound", "threshold", "escalate_above", "predictive_harm", "reasons", "search")
    return {s: {name: getattr(v, name) for name in names} for s, v in (("old", old), ("new", new))}


def _where(one: Compared) -> str:
    return f"{one.record.decision_id}  world {one.record.world}, {one.record.posterior_revision} observations"


def _flip_lines(one: Compared, old: Verdict, new: Verdict) -> list[str]:
    head = "LOOSENED  " if one.loosens else ""
    asked = (f"{name} {json.dumps(jsonable(value), sort_keys=True)}" for name, value in _texts(one))
    return [
        f"{head}{old.decision} -> {new.decision}  {_where(one)}",
        f"  {'  '.join(asked)}",
        f"  old: {_verdict_text(old)}",
        f"  new: {_verdict_text(new)}",
    ]


def _texts(one: Compared) -> Iterator[tuple[str, Any]]:
    yield "context", one.context
    yield "action", one.action


def _verdict_text(verdict: Verdict) -> str:
    limits = f"reject above {verdict.threshold:g}"
    if verdict.escalate_above is not None:
        limits += f", escalate above {verdict.escalate_above:g}"
    cut = ", search cut short by its deadline" if verdict.search is not None and verdict.search.truncated else ""
    why = "; ".join(f"{reason.code}: {reason.message}" for reason in verdict.reasons)
    return f"{verdict.decision}, bound {verdict.harm_bound:.4g} ({limits}{cut}); {why}"


def _sided(side: str, code: str) -> str:
    return f"{code} ({'the log' if side == 'log' else side.upper()})"
