"""Hypotheses and parameters as protobuf messages and back, for client and server alike."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from guardrail.domain import Hypothesis, Parameter, PosteriorDetail
from guardrail.v1 import guardrail_pb2 as pb

if TYPE_CHECKING:
    from typing import Literal

DETAIL_BYTES: Final = 2**20
"""No more is told once a message is as long: a hypothesis may have a parameter for each of many categories."""


def tell(detail: PosteriorDetail, world: pb.World) -> None:
    """Put hypotheses and parameters into a world's message, as many as fit; the first one always."""
    size = 0
    for hypothesis in detail.hypotheses:
        told = pb.Hypothesis(
            name=hypothesis.name,
            parameters=hypothesis.parameters,
            log_posterior=hypothesis.log_posterior,
            plausible=bool(hypothesis.plausible),
        )
        size += told.ByteSize()
        if world.hypotheses and size > DETAIL_BYTES:
            return
        world.hypotheses.append(told)
    for parameter in detail.parameters:
        world.parameters.add(
            name=parameter.name,
            mean=parameter.mean,
            deviation=parameter.deviation,
            plausible_low=parameter.plausible_low,
            plausible_high=parameter.plausible_high,
        )


def detail_of(world: pb.World) -> PosteriorDetail:
    """The hypotheses and parameters in a world's message. Where it counts none as plausible, nobody knows."""
    known = world.HasField("plausible")
    hypotheses = tuple(
        # A map has no order on the wire.
        Hypothesis(h.name, dict(sorted(h.parameters.items())), h.log_posterior, h.plausible if known else None)
        for h in world.hypotheses
    )
    parameters = tuple(
        Parameter(p.name, p.mean, p.deviation, _end(p, "plausible_low"), _end(p, "plausible_high"))
        for p in world.parameters
    )
    return PosteriorDetail(hypotheses, parameters)


def _end(parameter: pb.Parameter, name: Literal["plausible_low", "plausible_high"]) -> float | None:
    """An end of a range; None for what is no number."""
    value: float = getattr(parameter, name)
    return value if parameter.HasField(name) and not math.isnan(value) else None
