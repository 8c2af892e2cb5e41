"""`guardrail calibration`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from guardrail.cli.console import AsJson, ExitCode, LogUrl, emit, errors, report_error, text_console
from guardrail.cli.policy import policy_files
from guardrail.cli.progress import counted
from guardrail.cli.verdict import print_lines

if TYPE_CHECKING:
    from collections.abc import Iterator

    from guardrail.calibration_log import Calibration, Row
    from guardrail.errors import StoreCorrupt


def calibration(
    log: LogUrl,
    policy: Annotated[str | None, typer.Option(metavar="NAME", help="Only decisions of this policy.")] = None,
    world: Annotated[str | None, typer.Option(metavar="ID", help="Only decisions of this world.")] = None,
    policies: Annotated[
        list[Path] | None,
        typer.Option(metavar="PATH", help="Policy files or folders, for policies with programs. Repeatable."),
    ] = None,
    alpha: Annotated[float, typer.Option(metavar="P", help="Probability of an alarm without cause, per world.")] = 0.01,
    plot: Annotated[
        Path | None, typer.Option("--plot", metavar="FILE", help="Draw harm, prediction and evidence, as PNG.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Compare promised and predicted harm with the outcomes that were reported under the decisions' ids.

    For each world and policy revision: an e-value against "harm is at most as probable as each bound says", with an
    alarm at 1 / alpha, and the mean of harm with a confidence sequence beside the mean of predicted harm. Both hold at
    all times at once, so look as often as you like. Neither means anything if outcomes were withheld because of their
    value.

    Exit status: 0 if there is no alarm, 1 if there is one or the log is damaged.
    """
    from guardrail.errors import StoreCorrupt

    if not 0.0 < alpha < 1.0:
        raise typer.BadParameter("is a probability between 0 and 1", param_hint="--alpha")
    damage: StoreCorrupt | None = None
    with errors(as_json):
        from guardrail.calibration_log import Calibration
        from guardrail.policy import load_policy
        from guardrail.store import open_store

        if plot is not None:
            from guardrail.figures.canvas import require_matplotlib

            require_matplotlib()
        given = [load_policy(path) for path in policy_files(policies or [])]
        store = open_store(log, read_only=True)
        try:
            found = Calibration(
                store, policy=policy, world=world, policies=given, alpha=alpha, courses=plot is not None
            )
            for _ in counted(found.run(), "records read"):
                pass
        except StoreCorrupt as error:
            damage = error
        finally:
            store.close()
    if damage is not None:
        # Sums over a part of a damaged log are about nothing.
        report_error(damage, as_json=as_json)
        raise typer.Exit(ExitCode.NO)
    if as_json:
        emit(_document(found))
    else:
        _print(found)
    if plot is not None:
        from guardrail.figures.calibration import save

        try:
            save(found, plot)
        except OSError as error:
            raise typer.BadParameter(f"{plot} cannot be written: {error}", param_hint="--plot") from error
    raise typer.Exit(ExitCode.NO if found.alarms else ExitCode.OK)


def _document(found: Calibration) -> dict[str, Any]:
    return {
        "alpha": found.alpha,
        "alarm_log_e_value": found.threshold,
        "alarms": found.alarms,
        "worlds": [_row(row, found.alpha) for row in found.rows],
        "reports_without_decision": found.unnamed,
        "unusable": [
            {"code": code, "reports": count, "example": found.examples[code]}
            for code, count in sorted(found.unusable.items())
        ],
    }


def _row(row: Row, alpha: float) -> dict[str, Any]:
    from guardrail.promises import predictions

    told = predictions(row, alpha)
    names = ("policy", "policy_revision", "world", "generation", "decisions", "accepted", "accepted_unreported")
    return {
        **{name: getattr(row, name) for name in names},
        "outcomes": row.outcomes,
        "harms": row.harms,
        "mean_bound": row.bounds / row.outcomes if row.outcomes else None,
        "steps": row.steps,
        "log_e_value": row.evidence.log_e_value,
        "largest_log_e_value": row.evidence.peak,
        "alarm": row.alarm_at is not None,
        "alarm_at_outcome": row.alarm_at,
        "predictions": told
        and {
            "outcomes": told.outcomes,
            "mean_predicted": told.predicted,
            "mean_harm": told.harm,
            "mean_harm_interval": told.interval,
            "finding": told.finding,
        },
    }


def _print(found: Calibration) -> None:
    console = text_console()
    for row in found.rows:
        console.print(row.title)
        print_lines(console, list(_lines(row, found)))
    for code, count in sorted(found.unusable.items()):
        console.print(f"{count} reports left out, {code}: for instance {found.examples[code]}")
    if found.unnamed:
        console.print(f"{found.unnamed} reports name no decision and are left out")
    alarms = {0: "no alarm", 1: "1 alarm"}.get(found.alarms, f"{found.alarms} alarms")
    console.print(
        f"{alarms} in {len(found.rows)} rows. Without cause a row has one with probability at most {found.alpha:g}, "
        "besides the delta with which its bounds may fail."
    )
    unreported = sum(row.accepted_unreported for row in found.rows)
    console.print(
        f"{unreported or 'No'} accepted decisions have no report. If outcomes were withheld because of their value, "
        "these numbers mean nothing."
    )


def _lines(row: Row, found: Calibration) -> Iterator[tuple[str, str]]:
    from guardrail.promises import predictions

    yield "decisions", f"{row.decisions}, {row.accepted} accepted, {row.accepted_unreported} of these without report"
    if not row.outcomes:
        yield "outcomes", "none joined: nothing can be said"
        return
    yield "outcomes", f"{row.outcomes}, harm in {row.harms}; mean bound {row.bounds / row.outcomes:.4g}"
    told = (
        "no alarm" if row.alarm_at is None else f"ALARM at outcome {row.alarm_at}: harm is more frequent than promised"
    )
    yield (
        "evidence",
        f"log e-value {row.evidence.log_e_value:.4g}, largest {row.evidence.peak:.4g}, alarm at {found.threshold:.4g}",
    )
    yield "", told
    predicted = predictions(row, found.alpha)
    if predicted is not None:
        low, high = predicted.interval
        yield "mean harm", f"{predicted.harm:.4g}, in [{low:.4g}, {high:.4g}] with confidence {1 - found.alpha:.6g}"
        yield "predicted", f"{predicted.predicted:.4g}: {predicted.finding}"
    elif row.steps > 1:
        yield "predicted", f"harm within {row.steps} steps; outcomes show one, so there is nothing to compare it with"
    else:
        yield "predicted", "none"


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command(epilog="Example: guardrail calibration --log var/guardrail.db --plot calibration.png")(calibration)
