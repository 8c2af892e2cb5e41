"""The parameters of the exploding-bandit suites."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Literal, Self, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from simulations.noniid.guardrails import Guardrail, Kind, Order, expand
from simulations.runner.suite import SuiteConfig

if TYPE_CHECKING:
    from collections.abc import Sequence

MAX_HYPOTHESES = 2**22
"""As many as an episode is played with; the service enumerates more."""
MAX_NUMBERS = 10**8
"""Of chance, or of places in random orders, in one chunk."""
MAX_MEANS = 500
"""Different mean rewards of an arm: programs are unrolled over them, and take long to compile."""
PAPER_ALPHAS = (1e-5, 3e-5, 1e-4, 3e-4, 1e-2, 3e-2, 1e-1, 3e-1, 1.0)


def _some(values: tuple[object, ...]) -> tuple[object, ...]:
    if not values:
        raise ValueError("give at least one value")
    if len(set(values)) < len(values):
        raise ValueError(f"every value once, got {', '.join(map(str, values))}")
    return values


Some = AfterValidator(_some)
Alpha = Annotated[float, Field(ge=0.0, le=1.0)]
Delta = Annotated[float, Field(gt=0.0, le=1.0)]
Threshold = Annotated[float, Field(ge=0.0, lt=1.0)]


class BanditConfig(SuiteConfig):
    """The bandit, and how many episodes of it."""

    arms: int = Field(10, ge=1, le=1000, description="number of arms")
    dim: int = Field(10, ge=1, le=22, description="number of features of an arm")
    levels: int = Field(2, ge=2, le=64, description="features and weights are 0, ..., levels - 1")
    sigma: float = Field(1.0, gt=0.0, le=1e6, description="standard deviation of the reward")
    explosion_threshold: float | None = Field(
        None,
        allow_inf_nan=False,
        description="a reward above it explodes; default: the rounded mean of the best arm's mean over 100 problems",
    )
    steps: int = Field(25, ge=1, le=10_000, description="longest episode")
    episodes: int = Field(10_000, ge=1, le=10**8, description="episodes of every cell")
    seed: int = Field(0, ge=0, lt=2**32, description="all chance follows from it")
    chunk: int = Field(2_500, ge=1, le=10**6, description="episodes run together: more take more memory")

    @model_validator(mode="after")
    def _enumerable(self) -> Self:
        if self.levels**self.dim > MAX_HYPOTHESES:
            raise ValueError(
                f"levels^dim = {self.levels}^{self.dim} hypotheses are too many; "
                f"at most {MAX_HYPOTHESES} are enumerated"
            )
        means = (self.levels - 1) ** 2 * self.dim + 1
        if means > MAX_MEANS:
            raise ValueError(
                f"(levels - 1)^2 * dim + 1 = {means} different mean rewards are too many; at most {MAX_MEANS}, so "
                "choose fewer levels or features"
            )
        if self.chunk * self.steps * self.arms > MAX_NUMBERS:
            raise ValueError(
                f"chunk * steps * arms = {self.chunk * self.steps * self.arms} numbers of chance are too many "
                "to hold at once; at most 10^8, so choose a smaller chunk"
            )
        return self


def check_orders(config: BanditConfig, ties: Sequence[Order]) -> None:
    """Refuse a chunk whose random orders of the hypotheses, one for each episode, would not fit in memory.

    :raises ValueError: if they are too many.
    """
    episodes, hypotheses = min(config.chunk, config.episodes), config.levels**config.dim
    if "random" in ties and episodes * hypotheses > MAX_NUMBERS:
        raise ValueError(
            f"random orders of {hypotheses} hypotheses for each of {episodes} episodes are too many to hold at once; "
            "at most 10^8 places, so choose a smaller chunk"
        )


class Aggregation(BaseModel):
    """Parameters of the authors' aggregations."""

    model_config = ConfigDict(frozen=True)
    quantile: float
    exponent: float
    temperature: float


class NoniidConfig(BanditConfig):
    """An agent that seeks reward in the exploding bandit, under guardrails."""

    bounds: Annotated[tuple[Kind, ...], Some] = Field(
        ("none", "cheating", "predictive", "iid", "plausible", "ratio", "ratio-running"),
        description=f"guardrails to compare: {', '.join(get_args(Kind))}",
    )
    thresholds: Annotated[tuple[Threshold, ...], Some] = Field(
        (0.001, 0.01, 0.1), description="harm thresholds C: an arm is rejected if its bound exceeds C"
    )
    alphas: Annotated[tuple[Alpha, ...], Some] = Field(PAPER_ALPHAS, description="levels of the plausible set")
    deltas: Annotated[tuple[Delta, ...], Some] = Field((0.01, 0.1), description="levels of the ratio set")
    ties: Annotated[tuple[Order, ...], Some] = Field(
        ("all",),
        description="which hypotheses tied at the edge of the plausible set are in: all, or the first in ascending, "
        "descending or random order",
    )
    beta: float = Field(0.5, ge=0.0, le=1e6, description="inverse temperature of the agent, per unit of reward")
    accounting: Literal["complete", "authors"] = Field(
        "complete",
        description="authors: as the paper's code counts, which misses explosions at the last step and "
        "counts the steps and rejections after the last arm was rejected",
    )
    quantile: float = Field(0.8, ge=0.0, le=1.0, description="of aggregate-quantile")
    exponent: float = Field(1.0, gt=0.0, le=100.0, description="of the power means of the aggregations")
    temperature: float = Field(0.01, gt=1e-6, le=1e6, description="of aggregate-softmax, in units of posterior mass")

    @model_validator(mode="after")
    def _finite(self) -> Self:
        if not math.isfinite(self.beta):
            raise ValueError(f"beta must be finite, got {self.beta}")
        return self

    @model_validator(mode="after")
    def _orders_fit(self) -> Self:
        check_orders(self, self.ties)
        return self

    def aggregation(self) -> Aggregation:
        """Parameters of the authors' aggregations."""
        return Aggregation(quantile=self.quantile, exponent=self.exponent, temperature=self.temperature)

    def guardrails(self) -> list[Guardrail]:
        """What is compared, in the order of the table."""
        return expand(self.bounds, self.alphas, self.deltas, self.ties)
