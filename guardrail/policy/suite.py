"""Runs a policy's tests: does each named situation get the decision that its author expects?"""

from __future__ import annotations

import csv
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from guardrail.domain import Decision, JsonObject, JsonValue, ReasonCode, Verdict
from guardrail.errors import InvalidInput
from guardrail.policy.suite_file import load_suite, read_history

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from guardrail.policy.policy import Policy
    from guardrail.policy.suite_schema import Case


class WorldGuard(Protocol):
    """What a suite needs of `guardrail.Guard`."""

    def fork(self) -> WorldGuard:
        """A guard over a fresh world, with the same compiled policy."""
        ...

    def check(self, context: JsonObject, action: JsonObject) -> Verdict:
        """Decide about one action."""
        ...

    def observe(self, context: JsonObject, action: JsonObject, outcome: JsonValue) -> None:
        """Condition on one outcome."""
        ...


@dataclass(frozen=True, slots=True)
class CaseResult:
    """What became of one case.

    Attributes:
        name: the case.
        line: where it stands in the suite, 1-based.
        failures: what was expected and what came instead; empty if the case passed.
        verdict: the verdict; None if the history could not be observed.
        rule: 0-based index of the rule that matched; None if none did.
    """

    name: str
    line: int
    failures: tuple[str, ...]
    verdict: Verdict | None
    rule: int | None

    @property
    def passed(self) -> bool:
        """True if everything was as expected."""
        return not self.failures


@dataclass(frozen=True, slots=True)
class SuiteReport:
    """What became of a suite, and what no case reached.

    Attributes:
        policy: the policy's name.
        cases: one result for each case, in order.
        unreached_rules: rules that no case matched, as `2: reason`, 1-based.
        unreached_decisions: decisions that the policy can make but no case got.
        unreached_reasons: reason codes that the policy can give but no case got.
        budget_left_out: True if the policy has a harm budget: each case is checked as if it had none.
    """

    policy: str
    cases: tuple[CaseResult, ...]
    unreached_rules: tuple[str, ...]
    unreached_decisions: tuple[str, ...]
    unreached_reasons: tuple[str, ...]
    budget_left_out: bool = False

    @property
    def passed(self) -> bool:
        """True if every case passed; what is unreached is no failure."""
        return all(case.passed for case in self.cases)

    def to_dict(self) -> dict[str, Any]:
        """The same as plain JSON values."""
        return {
            "policy": self.policy,
            "passed": self.passed,
            "cases": [
                {
                    "name": case.name,
                    "line": case.line,
                    "passed": case.passed,
                    "failures": list(case.failures),
                    "decision": None if case.verdict is None else case.verdict.found.value,
                    "harm_bound": None if case.verdict is None else case.verdict.harm_bound,
                    "predictive_harm": None if case.verdict is None else case.verdict.predictive_harm,
                    "reasons": [] if case.verdict is None else [r.code.value for r in case.verdict.reasons],
                }
                for case in self.cases
            ],
            "unreached_rules": list(self.unreached_rules),
            "unreached_decisions": list(self.unreached_decisions),
            "unreached_reasons": list(self.unreached_reasons),
            "budget_left_out": self.budget_left_out,
        }


def run_suite(
    policy: Policy, suite_path: str | Path, *, make_guard: Callable[[Policy], WorldGuard] | None = None
) -> SuiteReport:
    """Run every case of a suite, each in a fresh world, without the policy's harm budget and time for reports.

    Args:
        policy: the policy under test.
        suite_path: its `suite.yaml`; history files lie beside it.
        make_guard: builds the guard that is forked for each case; `guardrail.Guard` by default.

    :raises PolicyError: if the suite is wrong; holds every problem with its position.
    """
    suite, document = load_suite(suite_path)
    guard = (make_guard or _default_guard)(_without_past(policy))
    folder = Path(suite_path).parent
    results = []
    for index, case in enumerate(suite.cases):
        line = document.nearest(("cases", index)).line
        results.append(_run_case(policy, guard.fork(), case, folder, line))
    return _report(policy, tuple(results))


def _without_past(policy: Policy) -> Policy:
    """The policy as each case alone sees it: without a budget, and without a time for reports."""
    decision = policy.spec.decision.model_copy(update={"budget": None})
    reporting = policy.spec.reporting.model_copy(update={"within": None, "overdue": "reject"})
    return replace(policy, spec=policy.spec.model_copy(update={"decision": decision, "reporting": reporting}))


def _default_guard(policy: Policy) -> WorldGuard:
    # Imported late: reading and checking policies needs no numerics, running them does.
    from guardrail.guard import Guard

    return Guard(policy)


def _run_case(policy: Policy, guard: WorldGuard, case: Case, folder: Path, line: int) -> CaseResult:
    try:
        for context, action, outcome in _history(policy, case, folder):
            guard.observe(context, action, outcome)
    except (InvalidInput, ValueError, csv.Error, OSError) as error:
        return CaseResult(case.name, line, (f"the history cannot be observed: {error}",), None, None)
    context, action = _lists(case.context), _lists(case.action)
    verdict = guard.check(context, action)
    return CaseResult(case.name, line, tuple(_failures(case, verdict)), verdict, _rule(policy, context, action))


def _history(policy: Policy, case: Case, folder: Path) -> Iterator[tuple[Any, Any, Any]]:
    if case.history_file is not None:
        for event in read_history(case.history_file, folder, policy):
            yield event.context, event.action, event.outcome
    for event in case.history:
        for _ in range(event.times):
            yield _lists(event.context), _lists(event.action), _lists(event.outcome)


def _failures(case: Case, verdict: Verdict) -> Iterator[str]:
    expect = case.expect
    if verdict.found.value != expect.decision:
        why = "; ".join(f"{reason.code.value}: {reason.message}" for reason in verdict.reasons)
        yield f"decision: expected {expect.decision}, got {verdict.found.value} ({why})"
    if expect.harm_bound is not None and not expect.harm_bound.holds(verdict.harm_bound):
        yield f"harm_bound: expected {expect.harm_bound}, got {verdict.harm_bound:.6g}"
    if expect.predictive_harm is not None and not expect.predictive_harm.holds(verdict.predictive_harm):
        got = "none" if verdict.predictive_harm is None else f"{verdict.predictive_harm:.6g}"
        yield f"predictive_harm: expected {expect.predictive_harm}, got {got}"
    codes = [reason.code.value for reason in verdict.reasons]
    for code in expect.reasons:
        if code not in codes:
            yield f"reasons: expected {code}, got {', '.join(codes) or 'none'}"


def _rule(policy: Policy, context: JsonObject, action: JsonObject) -> int | None:
    try:
        matched = policy.match_rule(policy.inputs(context, action))
    except InvalidInput:
        return None
    return None if matched is None else matched.index


def _report(policy: Policy, results: tuple[CaseResult, ...]) -> SuiteReport:
    verdicts = [result.verdict for result in results if result.verdict is not None]
    decisions = {verdict.found for verdict in verdicts}
    codes = {reason.code for verdict in verdicts for reason in verdict.reasons}
    rules = {result.rule for result in results}
    return SuiteReport(
        policy=policy.name,
        cases=results,
        unreached_rules=tuple(
            f"{index + 1}: {rule.reason}" for index, rule in enumerate(policy.spec.rules) if index not in rules
        ),
        unreached_decisions=tuple(d.value for d in _possible_decisions(policy) if d not in decisions),
        unreached_reasons=tuple(code.value for code in _possible_reasons(policy) if code not in codes),
        budget_left_out=policy.spec.decision.budget is not None,
    )


def _possible_decisions(policy: Policy) -> list[Decision]:
    escalates = policy.spec.decision.escalate_above is not None
    escalates = escalates or any(rule.decide == "escalate" for rule in policy.spec.rules)
    return [Decision.ACCEPT, *([Decision.ESCALATE] if escalates else []), Decision.REJECT]


def _possible_reasons(policy: Policy) -> Iterator[ReasonCode]:
    yield ReasonCode.WITHIN_THRESHOLD
    if policy.spec.decision.reject_above < 1:
        yield ReasonCode.HARM_BOUND_ABOVE_REJECT
    if policy.spec.decision.escalate_above is not None:
        yield ReasonCode.HARM_BOUND_ABOVE_ESCALATE
    if policy.spec.rules:
        yield ReasonCode.RULE_MATCHED
    if policy.programs.category is not None:
        yield ReasonCode.UNKNOWN_CATEGORY
    if any(feature.expression.reads for feature in policy.programs.features):
        yield ReasonCode.FEATURE_MISSING


def _lists(value: Any) -> Any:
    """YAML sequences come as tuples; inputs are JSON, with lists."""
    if isinstance(value, dict):
        return {key: _lists(item) for key, item in value.items()}
    return [_lists(item) for item in value] if isinstance(value, tuple) else value
