"""The parameters of the suite `tightness`."""

from __future__ import annotations

from typing import Annotated, Literal, Self, TypeAlias, get_args

from pydantic import Field, model_validator

from simulations.noniid.config import PAPER_ALPHAS, Alpha, BanditConfig, Delta, Some, check_orders
from simulations.noniid.guardrails import Guardrail, Order, expand

TightnessKind: TypeAlias = Literal["iid", "plausible", "ratio"]


class TightnessConfig(BanditConfig):
    """A bandit that goes on after an explosion, arms pulled uniformly at random, no arm rejected."""

    bounds: Annotated[tuple[TightnessKind, ...], Some] = Field(
        ("iid", "plausible", "ratio"), description=f"bounds to compare: {', '.join(get_args(TightnessKind))}"
    )
    alphas: Annotated[tuple[Alpha, ...], Some] = Field(PAPER_ALPHAS, description="levels of the plausible set")
    deltas: Annotated[tuple[Delta, ...], Some] = Field((0.01, 0.1), description="levels of the ratio set")
    ties: Annotated[tuple[Order, ...], Some] = Field(
        ("all", "ascending"),
        description="which hypotheses tied at the edge of the plausible set are in: all, or the first in ascending, "
        "descending or random order",
    )

    @model_validator(mode="after")
    def _orders_fit(self) -> Self:
        check_orders(self, self.ties)
        return self

    def guardrails(self) -> list[Guardrail]:
        """What is compared, in the order of the table."""
        return expand(self.bounds, self.alphas, self.deltas, self.ties)
