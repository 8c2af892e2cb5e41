"""Bounds, summaries and guarantees as JSON values, between the service and a program's process."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from guardrail.domain import (
    NO_GUARANTEE,
    BooleanHarm,
    CautiousHypothesis,
    Guarantee,
    GuaranteeKind,
    HarmBound,
    HarmEvent,
    Hypothesis,
    IntervalHarm,
    ModelHarm,
    Parameter,
    PosteriorDetail,
    PosteriorSummary,
    Reason,
    ReasonCode,
    Search,
)

if TYPE_CHECKING:
    from collections.abc import Mapping


def harm_to_dict(harm: HarmEvent) -> dict[str, Any]:
    """A harm event, tagged with its kind."""
    return {"kind": type(harm).__name__, **asdict(harm)}


def harm_from_dict(values: Mapping[str, Any]) -> HarmEvent:
    """What `harm_to_dict` wrote."""
    kinds: dict[str, Any] = {kind.__name__: kind for kind in (BooleanHarm, IntervalHarm, ModelHarm)}
    event: HarmEvent = kinds[values["kind"]](**{name: value for name, value in values.items() if name != "kind"})
    return event


def guarantee_to_dict(guarantee: Guarantee) -> dict[str, Any]:
    """All fields."""
    return asdict(guarantee)


def guarantee_from_dict(values: Mapping[str, Any]) -> Guarantee:
    """What `guarantee_to_dict` wrote."""
    kind = GuaranteeKind(values["kind"])
    return Guarantee(kind, float(values["confidence"]), tuple(values["assumptions"]), str(values["source"]))


def bound_to_dict(bound: HarmBound) -> dict[str, Any]:
    """All fields but the guarantee, which is the oracle's unless there is a failure."""
    cautious, failure = bound.cautious, bound.failure
    return {
        "value": bound.value,
        "predictive": bound.predictive,
        "cautious": None if cautious is None else asdict(cautious),
        "failure": None if failure is None else {"code": failure.code.value, "message": failure.message},
        "search": None if bound.search is None else asdict(bound.search),
    }


def bound_from_dict(values: Mapping[str, Any], guarantee: Guarantee) -> HarmBound:
    """What `bound_to_dict` wrote.

    :raises ValueError: if it is no bound: a value outside [0, 1], or a failure with a value below 1.
    """
    failure, cautious, value = values["failure"], values["cautious"], float(values["value"])
    predictive = None if values["predictive"] is None else float(values["predictive"])
    if not 0.0 <= value <= 1.0 or (predictive is not None and not 0.0 <= predictive <= 1.0):
        raise ValueError(f"{value} and {predictive} are no harm probabilities")
    if failure is not None:
        return HarmBound(1.0, None, None, NO_GUARANTEE, Reason(ReasonCode(failure["code"]), str(failure["message"])))
    hypothesis = None
    if cautious is not None:
        parameters = {str(name): float(number) for name, number in cautious["parameters"].items()}
        log_posterior = None if cautious["log_posterior"] is None else float(cautious["log_posterior"])
        hypothesis = CautiousHypothesis(str(cautious["name"]), parameters, float(cautious["harm"]), log_posterior)
    search = values["search"]
    how_far = None if search is None else Search(bool(search["truncated"]), float(search["scanned"]))
    return HarmBound(value, predictive, hypothesis, guarantee, search=how_far)


def summary_to_dict(summary: PosteriorSummary) -> dict[str, Any]:
    """All fields but the detail, which is asked for by itself."""
    return {name: value for name, value in asdict(summary).items() if name != "detail"}


def detail_to_dict(detail: PosteriorDetail) -> dict[str, Any]:
    """All fields."""
    return asdict(detail)


def detail_from_dict(values: Mapping[str, Any], limit: int) -> PosteriorDetail:
    """What `detail_to_dict` wrote, at most `limit` of each.

    :raises ValueError, KeyError, TypeError: if it is none.
    """
    hypotheses = tuple(_hypothesis(one) for one in values["hypotheses"][:limit])
    return PosteriorDetail(hypotheses, tuple(_parameter(one) for one in values["parameters"][:limit]))


def _hypothesis(values: Mapping[str, Any]) -> Hypothesis:
    parameters = {str(name): float(number) for name, number in values["parameters"].items()}
    plausible = None if values["plausible"] is None else bool(values["plausible"])
    return Hypothesis(str(values["name"]), parameters, float(values["log_posterior"]), plausible)


def _parameter(values: Mapping[str, Any]) -> Parameter:
    ends = [None if values[end] is None else float(values[end]) for end in ("plausible_low", "plausible_high")]
    return Parameter(str(values["name"]), float(values["mean"]), float(values["deviation"]), *ends)


def summary_from_dict(values: Mapping[str, Any], revision: int) -> PosteriorSummary:
    """What `summary_to_dict` wrote, of a state with so many observations."""
    entropy = values["entropy"]
    return PosteriorSummary(
        revision=revision,
        refuted=bool(values["refuted"]),
        class_size=values["class_size"],
        plausible=values["plausible"],
        entropy=None if entropy is None or not math.isfinite(entropy) else float(entropy),
        top={str(name): float(mass) for name, mass in values["top"].items()},
    )
