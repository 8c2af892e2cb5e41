"""A verdict, a guarantee and a posterior as text for people."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from rich.text import Text

from guardrail.domain import Decision, GuaranteeKind

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from guardrail.domain import CautiousHypothesis, Guarantee, HarmBudget, PosteriorSummary, Search, Verdict

STYLES = {Decision.ACCEPT: "bold green", Decision.ESCALATE: "bold yellow", Decision.REJECT: "bold red"}
_KINDS = {
    GuaranteeKind.THEOREM: "theorem: holds at all times at once",
    GuaranteeKind.ASYMPTOTIC: "asymptotic: holds from some unknown time on, promises nothing now",
    GuaranteeKind.ESTIMATE: "estimate: part of it is an approximation with unknown error",
    GuaranteeKind.NONE: "none: no promise",
}

BAR = 20
"""Characters of a budget's bar."""

Line = tuple[str, str]
"""A label and what stands beside it."""


def print_verdict(console: Console, verdict: Verdict) -> None:
    """Print a verdict: the decision first, then why."""
    head = Text(verdict.decision.value.upper(), STYLES[verdict.decision])
    if verdict.shadow:
        head = Text("SHADOW MODE, LET THROUGH: would ") + Text(verdict.found.value.upper(), STYLES[verdict.found])
    head.append(f"  {verdict.policy}, world {verdict.world}, {verdict.posterior_revision} observations", "default")
    console.print(head)
    print_lines(console, verdict_lines(verdict))


def print_lines(console: Console, lines: Sequence[Line]) -> None:
    """Print labels and values in two columns."""
    width = max((len(label) for label, _ in lines), default=0)
    for label, value in lines:
        console.print(Text(f"  {label:<{width}}  ", "dim") + Text(value, "default"))


def verdict_lines(verdict: Verdict) -> list[Line]:
    """Everything a person needs to understand a verdict."""
    limits = f"reject above {verdict.threshold:g}"
    if verdict.escalate_above is not None:
        limits += f", escalate above {verdict.escalate_above:g}"
    predictive = "none" if verdict.predictive_harm is None else f"{verdict.predictive_harm:.4g} (without guarantee)"
    return [
        *(("because", f"{reason.code}: {reason.message}") for reason in verdict.reasons),
        *(("notice", f"{notice.code}: {notice.message}") for notice in verdict.notices),
        ("harm bound", f"{verdict.harm_bound:.4g} ({limits})"),
        ("predictive harm", predictive),
        ("cautious hypothesis", cautious_text(verdict.cautious_hypothesis)),
        *search_lines(verdict.search),
        *(() if verdict.budget is None else (("harm budget", budget_text(verdict.budget)),)),
        *guarantee_lines(verdict.guarantee),
        *_person_lines(verdict),
        ("policy revision", verdict.policy_revision),
        ("decision id", verdict.decision_id),
    ]


def _person_lines(verdict: Verdict) -> list[Line]:
    """Who let it pass, or until when somebody may."""
    if verdict.approval is not None:
        note = f": {verdict.approval.note}" if verdict.approval.note else ""
        return [("approved", f"by {verdict.approval.approver or '(callers are not told apart)'}{note}")]
    if verdict.escalation_expires is not None:
        until = datetime.fromtimestamp(verdict.escalation_expires, UTC).isoformat(timespec="seconds")
        return [("may be approved until", until)]
    return []


def cautious_text(cautious: CautiousHypothesis | None) -> str:
    """The cautious hypothesis in one line."""
    if cautious is None:
        return "none"
    parameters = cautious.parameters
    shown = ", ".join(f"{name}={value:.4g}" for name, value in parameters.items() if name not in cautious.name)
    text = f"{cautious.name} ({shown})" if shown else cautious.name
    text += f", harm {cautious.harm:.4g}"
    if cautious.log_posterior is not None:
        text += f", posterior mass {math.exp(cautious.log_posterior):.3g}"
    return text


def budget_text(budget: HarmBudget) -> str:
    """What is spent of a budget, as a bar and in numbers."""
    full = math.ceil(min(budget.spent / budget.total, 1.0) * BAR) if budget.total > 0.0 else BAR
    of = f" of session {budget.session}" if budget.session else " of the window"
    return f"[{'#' * full}{'.' * (BAR - full)}] {budget.spent:.4g} of {budget.total:g} spent{of}"


def search_lines(search: Search | None) -> list[Line]:
    """How far a search went; nothing if it looked at everything."""
    if search is None or (search.scanned == 1.0 and not search.truncated):
        return []
    if search.truncated:
        told = f"truncated by its deadline after {search.scanned:.1%} of the class; the rest counts with its worst"
    else:
        told = f"complete; {search.scanned:.1%} of the class was looked at, the rest cannot be more harmful"
    return [("search", told)]


def guarantee_lines(guarantee: Guarantee) -> list[Line]:
    """What a bound promises, under which assumptions, and who proved it."""
    lines = [("guarantee", _KINDS[guarantee.kind])]
    if guarantee.kind is GuaranteeKind.THEOREM:
        lines.append(("confidence", f"{guarantee.confidence:.6g}"))
    lines += [("assumes" if i == 0 else "", assumption) for i, assumption in enumerate(guarantee.assumptions)]
    return [*lines, ("source", guarantee.source)]


def posterior_lines(posterior: PosteriorSummary) -> list[Line]:
    """A posterior at a glance."""
    lines = [("observations", str(posterior.revision))]
    if posterior.refuted:
        lines.append(("refuted", "no hypothesis of the class is plausible: every check is rejected"))
    if posterior.class_size is not None:
        lines.append(("plausible", f"{posterior.plausible} of {posterior.class_size} hypotheses"))
    if posterior.entropy is not None:
        lines.append(("entropy", f"{posterior.entropy:.4g} nats"))
    what = "most probable" if posterior.class_size is not None else "posterior mean"
    return [*lines, *((what if i == 0 else "", f"{n}: {v:.4g}") for i, (n, v) in enumerate(posterior.top.items()))]
