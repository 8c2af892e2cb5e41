"""Protobuf messages to the project's nouns and back, for client and server alike.

What comes from the wire is doubted: a verdict that is not plainly an accept becomes a reject.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final, Literal

from google.protobuf import timestamp_pb2
from google.protobuf.struct_pb2 import NULL_VALUE, Struct, Value

from guardrail.canonical import MAX_DEPTH, plain
from guardrail.domain import (
    NO_GUARANTEE,
    Approval,
    CautiousHypothesis,
    Decision,
    Guarantee,
    GuaranteeKind,
    HarmBudget,
    JsonObject,
    JsonValue,
    Reason,
    ReasonCode,
    Search,
    Verdict,
)
from guardrail.errors import InvalidInput
from guardrail.v1 import guardrail_pb2 as pb

DECISION_TO_PROTO: Final[Mapping[Decision, pb.Decision.ValueType]] = MappingProxyType(
    {
        Decision.ACCEPT: pb.DECISION_ACCEPT,
        Decision.REJECT: pb.DECISION_REJECT,
        Decision.ESCALATE: pb.DECISION_ESCALATE,
    }
)
DECISION_FROM_PROTO: Final[Mapping[int, Decision]] = MappingProxyType({n: d for d, n in DECISION_TO_PROTO.items()})
"""Holds decisions only: what is missing here is no decision."""

KIND_TO_PROTO: Final[Mapping[GuaranteeKind, pb.GuaranteeKind.ValueType]] = MappingProxyType(
    {
        GuaranteeKind.THEOREM: pb.GUARANTEE_KIND_THEOREM,
        GuaranteeKind.ASYMPTOTIC: pb.GUARANTEE_KIND_ASYMPTOTIC,
        GuaranteeKind.ESTIMATE: pb.GUARANTEE_KIND_ESTIMATE,
        GuaranteeKind.NONE: pb.GUARANTEE_KIND_NONE,
    }
)
KIND_FROM_PROTO: Final[Mapping[int, GuaranteeKind]] = MappingProxyType({n: k for k, n in KIND_TO_PROTO.items()})
"""Holds kinds only: what is missing here promises nothing."""


# ---------------------------------------------------------------- plain values


def struct_to_dict(struct: Struct) -> dict[str, Any]:
    """A Struct, of whichever descriptor pool, as plain values; numbers are floats.

    NaN and infinities are kept, and a value without a kind becomes None: the caller checks.

    :raises InvalidInput: INPUT_TOO_LARGE if it is nested deeper than MAX_DEPTH; it could not be sent back.
    """
    return {name: value_to_plain(value, 1) for name, value in struct.fields.items()}


def value_to_plain(value: Value, depth: int = 0) -> Any:
    """A Value as a plain value, as in `struct_to_dict`; `depth` is that of the value itself.

    :raises InvalidInput: INPUT_TOO_LARGE if it is nested deeper than MAX_DEPTH.
    """
    # Reading one field costs a third of asking which is set, and only a number can be non-zero here.
    number = value.number_value
    if number:
        return number
    kind = value.WhichOneof("kind")
    if kind == "number_value":
        return number
    if kind == "string_value":
        return value.string_value
    if kind == "bool_value":
        return value.bool_value
    if kind == "list_value":
        _require_shallow(depth)
        return [item.number_value or value_to_plain(item, depth + 1) for item in value.list_value.values]
    if kind == "struct_value":
        _require_shallow(depth)
        return {name: value_to_plain(item, depth + 1) for name, item in value.struct_value.fields.items()}
    return None


def _require_shallow(depth: int) -> None:
    if depth >= MAX_DEPTH:
        raise InvalidInput(f"values are nested deeper than {MAX_DEPTH} levels", "INPUT_TOO_LARGE")


def dict_to_struct(values: JsonObject, path: str = "value") -> Struct:
    """A copy of plain values as a Struct; later changes to `values` do not reach it.

    Args:
        values: a mapping of what `canonical.plain` accepts; NaN and infinities are kept.
        path: how an error names the place, for instance `action`.

    :raises InvalidInput: if a value has no form on the wire (WRONG_TYPE) or is nested too deep
        (INPUT_TOO_LARGE); the message names its place.
    """
    if not isinstance(values, Mapping):
        raise InvalidInput(f"{path}: {type(values).__name__} is not an object", "WRONG_TYPE")
    struct = Struct()
    for name, item in plain(values, path).items():
        _fill(struct.fields[name], item)
    return struct


def plain_to_value(value: JsonValue, path: str = "value") -> Value:
    """A copy of one plain value as a Value.

    :raises InvalidInput: as `dict_to_struct` does.
    """
    result = Value()
    _fill(result, plain(value, path))
    return result


def _fill(target: Value, item: Any) -> None:
    if isinstance(item, bool):
        target.bool_value = item
    elif isinstance(item, float):
        target.number_value = item
    elif isinstance(item, str):
        target.string_value = item
    elif item is None:
        target.null_value = NULL_VALUE
    elif isinstance(item, list):
        target.list_value.SetInParent()  # so that an empty list arrives as one
        values = target.list_value.values
        for element in item:
            if type(element) is float:
                values.add().number_value = element
            else:
                _fill(values.add(), element)
    else:
        target.struct_value.SetInParent()
        fields = target.struct_value.fields
        for name, element in item.items():
            _fill(fields[name], element)


# ---------------------------------------------------------------- guarantees

_GUARANTEES_KEPT = 256
_guarantees: dict[int, tuple[Guarantee, pb.Guarantee]] = {}


def guarantee_to_proto(guarantee: Guarantee) -> pb.Guarantee:
    """A guarantee as a message that is shared between calls: copy it, never change it.

    An oracle puts one Guarantee object into all its bounds, so one message per object will do.
    """
    kept = _guarantees.get(id(guarantee))
    if kept is not None:  # it holds its guarantee, so the id is of this very object
        return kept[1]
    message = pb.Guarantee(
        kind=KIND_TO_PROTO[guarantee.kind],
        confidence=guarantee.confidence,
        assumptions=guarantee.assumptions,
        source=guarantee.source,
    )
    if len(_guarantees) >= _GUARANTEES_KEPT:
        _guarantees.clear()
    _guarantees[id(guarantee)] = (guarantee, message)
    return message


def guarantee_from_proto(message: pb.Guarantee) -> Guarantee:
    """A guarantee that promises no more than the message plainly says.

    An unknown kind, or a theorem without a probability as its confidence, promises nothing.
    """
    kind = KIND_FROM_PROTO.get(message.kind, GuaranteeKind.NONE)
    confidence = message.confidence if kind is GuaranteeKind.THEOREM else 0.0
    if not is_probability(confidence):
        kind, confidence = GuaranteeKind.NONE, 0.0
    return Guarantee(kind, confidence, tuple(message.assumptions), message.source)


# ---------------------------------------------------------------- verdicts


def is_probability(number: float) -> bool:
    """True for a number in [0, 1]; False for NaN."""
    return 0.0 <= number <= 1.0


def accept_is_backed(harm_bound: float, threshold: float, escalate_above: float | None) -> bool:
    """True if an accept agrees with the verdict's own numbers; every doubt, NaN first, is False."""
    limit = threshold if escalate_above is None else escalate_above
    return is_probability(threshold) and is_probability(limit) and 0.0 <= harm_bound <= min(limit, threshold)


def verdict_to_proto(verdict: Verdict) -> pb.Verdict:
    """A verdict as a message.

    :raises ValueError: if the verdict accepts against its own numbers. That is a defect, and the
        call must end without a decision.
    """
    # A person's approval lifts the limit for escalation, never the threshold; what is only watched is not an accept.
    limit = verdict.escalate_above if verdict.approval is None else None
    if verdict.found is Decision.ACCEPT and not accept_is_backed(verdict.harm_bound, verdict.threshold, limit):
        raise ValueError(f"decision {verdict.decision_id} accepts a harm bound above its own threshold")
    message = pb.Verdict(
        decision=DECISION_TO_PROTO[verdict.decision],
        harm_bound=verdict.harm_bound,
        threshold=verdict.threshold,
        escalate_above=verdict.escalate_above,
        predictive_harm=verdict.predictive_harm,
        policy=verdict.policy,
        policy_revision=verdict.policy_revision,
        world=verdict.world,
        posterior_revision=verdict.posterior_revision,
        decision_id=verdict.decision_id,
    )
    message.guarantee.CopyFrom(guarantee_to_proto(verdict.guarantee))
    for reason in verdict.reasons:
        message.reasons.add(code=reason.code, message=reason.message)
    for notice in verdict.notices:
        message.notices.add(code=notice.code, message=notice.message)
    if verdict.enforced_decision is not None:
        message.shadow, message.enforced_decision = verdict.shadow, DECISION_TO_PROTO[verdict.enforced_decision]
    if verdict.budget is not None:
        message.budget.CopyFrom(budget_to_proto(verdict.budget))
    if verdict.approval is not None:
        given = verdict.approval
        message.approval.CopyFrom(
            pb.Approval(escalation_id=given.escalation_id, approver=given.approver, note=given.note)
        )
        message.approval.resolved_at.FromNanoseconds(round(given.resolved_at * 1e9))
    if verdict.escalation_expires is not None:
        message.escalation_expires.FromNanoseconds(round(verdict.escalation_expires * 1e9))
    if verdict.search is not None:
        message.search.truncated, message.search.scanned = verdict.search.truncated, verdict.search.scanned
    cautious = verdict.cautious_hypothesis
    if cautious is not None:
        target = message.cautious_hypothesis
        target.name, target.harm = cautious.name, cautious.harm
        target.parameters.update(cautious.parameters)
        if cautious.log_posterior is not None:
            target.log_posterior = cautious.log_posterior
    return message


def budget_to_proto(budget: HarmBudget) -> pb.HarmBudget:
    """A budget as a message."""
    return pb.HarmBudget(per=budget.per, session=budget.session, total=budget.total, spent=budget.spent)


def budget_from_proto(message: pb.HarmBudget) -> HarmBudget:
    """A budget from a message."""
    return HarmBudget(message.per, message.session, message.total, message.spent)


def verdict_from_proto(message: pb.Verdict) -> Verdict:
    """A verdict that accepts only if the message plainly does; it never raises.

    Becomes a reject with the reason DECISION_UNSPECIFIED: no decision or an unknown one, a harm bound
    or a threshold that is no probability, an accept whose harm bound exceeds a threshold, an accept that
    lacks its harm bound, threshold, guarantee, id or policy revision. A harm bound that is missing or
    no probability reads as 1, a threshold that is none as 0.
    """
    decision, doubt = _decision(message)
    reasons = tuple(_reason(reason) for reason in message.reasons)
    if doubt:
        reasons = (Reason(ReasonCode.DECISION_UNSPECIFIED, doubt), *reasons)
    return Verdict(
        decision=decision,
        harm_bound=message.harm_bound if message.HasField("harm_bound") and is_probability(message.harm_bound) else 1.0,
        threshold=message.threshold if is_probability(message.threshold) else 0.0,
        escalate_above=_optional_probability(message, "escalate_above"),
        predictive_harm=_optional_probability(message, "predictive_harm"),
        cautious_hypothesis=_cautious(message),
        guarantee=guarantee_from_proto(message.guarantee) if message.HasField("guarantee") else NO_GUARANTEE,
        reasons=reasons,
        policy=message.policy,
        policy_revision=message.policy_revision,
        world=message.world,
        posterior_revision=message.posterior_revision,
        decision_id=message.decision_id,
        search=_search(message),
        notices=tuple(map(_reason, message.notices)),
        budget=budget_from_proto(message.budget) if message.HasField("budget") else None,
        approval=_approval(message),
        escalation_expires=_seconds(message.escalation_expires) if message.HasField("escalation_expires") else None,
        shadow=message.shadow,
        enforced_decision=DECISION_FROM_PROTO.get(message.enforced_decision) if message.shadow else None,
    )


def _decision(message: pb.Verdict) -> tuple[Decision, str]:
    """The decision, and what made it a reject if it came as something else."""
    decision = DECISION_FROM_PROTO.get(message.decision)
    if decision is None:
        return Decision.REJECT, f"the reply's decision ({message.decision}) is none that this client knows"
    if decision is Decision.ACCEPT and (missing := _missing(message)):
        return Decision.REJECT, f"the reply accepts without saying {missing}"
    if not is_probability(message.harm_bound):
        return Decision.REJECT, f"the reply's harm bound ({message.harm_bound}) is not a probability"
    found = decision
    if message.shadow:
        if decision is not Decision.ACCEPT or message.enforced_decision not in DECISION_FROM_PROTO:
            return Decision.REJECT, "the reply is of a policy that only watches, and does not say what it found"
        found = DECISION_FROM_PROTO[message.enforced_decision]
    # A person's approval lifts the limit for escalation, never the threshold.
    unlimited = message.HasField("approval") or not message.HasField("escalate_above")
    escalate_above = None if unlimited else message.escalate_above
    if found is Decision.ACCEPT and not accept_is_backed(message.harm_bound, message.threshold, escalate_above):
        return Decision.REJECT, f"the reply accepts a harm bound of {message.harm_bound} against its own thresholds"
    return decision, ""


def _approval(message: pb.Verdict) -> Approval | None:
    if not message.HasField("approval"):
        return None
    given = message.approval
    return Approval(given.escalation_id, given.approver, _seconds(given.resolved_at), given.note)


def _seconds(at: timestamp_pb2.Timestamp) -> float:
    """Seconds since the epoch; whatever the message holds."""
    return at.seconds + at.nanos / 1e9


def _missing(message: pb.Verdict) -> str:
    """What an accept must carry and does not; a number that is not there would read as 0, the most permissive."""
    present = {
        "its harm bound": message.HasField("harm_bound"),
        "its threshold": message.HasField("threshold"),
        "its guarantee": message.HasField("guarantee"),
        "its decision id": bool(message.decision_id),
        "the policy's revision": bool(message.policy_revision),
    }
    return next((name for name, there in present.items() if not there), "")


def _reason(message: pb.Reason) -> Reason:
    if message.code in ReasonCode.__members__:
        return Reason(ReasonCode[message.code], message.message)
    return Reason(ReasonCode.UNRECOGNIZED, f"{message.code}: {message.message}")


def _optional_probability(message: pb.Verdict, name: Literal["escalate_above", "predictive_harm"]) -> float | None:
    if not message.HasField(name):
        return None
    number: float = getattr(message, name)
    return number if is_probability(number) else None


def _search(message: pb.Verdict) -> Search | None:
    """How far the search went; a share that is none reads as 0."""
    if not message.HasField("search"):
        return None
    scanned = message.search.scanned
    return Search(message.search.truncated, scanned if is_probability(scanned) else 0.0)


def _cautious(message: pb.Verdict) -> CautiousHypothesis | None:
    if not message.HasField("cautious_hypothesis"):
        return None
    cautious = message.cautious_hypothesis
    log_posterior = cautious.log_posterior if cautious.HasField("log_posterior") else None
    parameters = dict(sorted(cautious.parameters.items()))  # a map has no order on the wire
    return CautiousHypothesis(cautious.name, parameters, cautious.harm, log_posterior)
