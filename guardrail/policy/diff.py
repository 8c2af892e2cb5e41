"""What changes from one policy to another, and whether the guarantee starts anew.

Changing the class, the prior, the harm, the confidence or a threshold after seeing data breaks
the old guarantee: the new revision starts a new one, and the data is replayed through it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from guardrail.policy.memory_schema import IntegerOutcomeSpec
from guardrail.policy.schema import FieldSpec

if TYPE_CHECKING:
    from guardrail.policy.policy import Policy
    from guardrail.policy.reporting_schema import ReportingSpec
    from guardrail.policy.schema import Outcome


@dataclass(frozen=True, slots=True)
class Change:
    """One value that differs.

    Attributes:
        path: where, dotted: `decision.reject_above`, `rules[2].when`.
        kind: `added`, `removed` or `changed`.
        old, new: the values; None where there is none.
    """

    path: str
    kind: str
    old: Any
    new: Any

    def __str__(self) -> str:
        if self.kind == "added":
            return f"+ {self.path}: {self.new}"
        if self.kind == "removed":
            return f"- {self.path}: {self.old}"
        return f"~ {self.path}: {self.old} -> {self.new}"


@dataclass(frozen=True, slots=True)
class PolicyDiff:
    """All changes between two policies.

    Attributes:
        changes: sorted by path.
        reasons: why the guarantee starts anew; empty if it goes on.
    """

    changes: tuple[Change, ...]
    reasons: tuple[str, ...]

    @property
    def restarts_guarantee(self) -> bool:
        """True if the new policy starts a new guarantee."""
        return bool(self.reasons)

    def to_dict(self) -> dict[str, Any]:
        """The same as plain JSON values."""
        return {
            "changes": [{"path": c.path, "kind": c.kind, "old": c.old, "new": c.new} for c in self.changes],
            "restarts_guarantee": self.restarts_guarantee,
            "reasons": list(self.reasons),
        }

    def __str__(self) -> str:
        if not self.changes:
            return "no change"
        lines = [str(change) for change in self.changes]
        if self.reasons:
            lines += ["the guarantee starts anew:", *(f"  {reason}" for reason in self.reasons)]
        else:
            lines.append("the guarantee goes on")
        return "\n".join(lines)


def diff(old: Policy, new: Policy) -> PolicyDiff:
    """Compare two policies by content; comments and the order of keys do not matter."""
    changes = sorted(_changes("", _plain(old), _plain(new)), key=lambda change: change.path)
    return PolicyDiff(tuple(changes), tuple(_reasons(old, new)))


def _reasons(old: Policy, new: Policy) -> Iterator[str]:
    before, after = old.spec, new.spec
    if before.name != after.name:
        yield "name: another policy has worlds of its own"
    if before.hypotheses != after.hypotheses:
        yield "hypotheses: another class or prior"
    elif _files(old) != _files(new):
        yield "hypotheses: the program's files are others, so it may be another class or prior"
    if before.features != after.features or old.feature_names != new.feature_names:
        yield "features: the hypotheses see other numbers"
    elif _declared_for_features(old) != _declared_for_features(new):
        yield "context or action: a field that the features read is declared otherwise"
    if _observed(before.outcome) != _observed(after.outcome):
        yield "outcome: another quantity is observed"
    if old.harm != new.harm:
        yield "harm: another event is bounded"
    if before.bound != after.bound:
        yield "bound: another rule or confidence, chosen after seeing data"
    if before.decision != after.decision:
        yield "decision: other thresholds, chosen after seeing data"
    if before.reporting.self_report != after.reporting.self_report:
        yield "reporting: others may report, so the guarantee rests on other assumptions"
    if _overdue(before.reporting) != _overdue(after.reporting):
        yield "reporting: outcomes that are not reported in time are treated otherwise, which is an assumption, too"


def _overdue(reporting: ReportingSpec) -> tuple[float | None, str]:
    return reporting.within, reporting.overdue


def _observed(outcome: Outcome) -> tuple[str, str, int | None]:
    return outcome.name, outcome.type, outcome.count if isinstance(outcome, IntegerOutcomeSpec) else None


def _declared_for_features(policy: Policy) -> dict[tuple[str, str], tuple[str, int | None]]:
    expressions = [feature.expression for feature in policy.programs.features]
    if policy.programs.category is not None:
        expressions.append(policy.programs.category)
    declared = {"context": policy.spec.context, "action": policy.spec.action}
    found: dict[tuple[str, str], tuple[str, int | None]] = {}
    for owner, name in sorted({reference for expression in expressions for reference in expression.reads}):
        field = declared[owner][name]
        found[owner, name] = (field.type, field.length) if isinstance(field, FieldSpec) else (field, None)
    return found


def _plain(policy: Policy) -> dict[str, Any]:
    plain = policy.spec.model_dump(by_alias=True, exclude_none=True)
    return {**plain, "program files": _files(policy)} if policy.program is not None else plain


def _files(policy: Policy) -> dict[str, str]:
    return {} if policy.program is None else dict(policy.program.digests)


def _changes(path: str, old: Any, new: Any) -> Iterator[Change]:
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for key in sorted(old.keys() | new.keys(), key=lambda key: (isinstance(key, str), key)):
            inner = f"{path}.{key}" if path else str(key)
            if key not in old:
                yield Change(inner, "added", None, _jsonable(new[key]))
            elif key not in new:
                yield Change(inner, "removed", _jsonable(old[key]), None)
            else:
                yield from _changes(inner, old[key], new[key])
    elif isinstance(old, tuple) and isinstance(new, tuple):
        for index in range(max(len(old), len(new))):
            inner = f"{path}[{index}]"
            if index >= len(old):
                yield Change(inner, "added", None, _jsonable(new[index]))
            elif index >= len(new):
                yield Change(inner, "removed", _jsonable(old[index]), None)
            else:
                yield from _changes(inner, old[index], new[index])
    elif old != new:
        yield Change(path, "changed", _jsonable(old), _jsonable(new))


def _jsonable(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _jsonable(item) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        return [_jsonable(item) for item in value]
    return value
