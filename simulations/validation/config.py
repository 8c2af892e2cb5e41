"""The parameters of `python -m simulations validate`."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias, get_args

from pydantic import Field, field_validator, model_validator

from simulations.runner.suite import SuiteConfig
from simulations.validation.agents import AGENTS, Agent
from simulations.validation.cases import groups
from simulations.validation.catalogue import BOUNDS, BoundName

ClassName: TypeAlias = Literal[
    "enumerated",
    "twins",
    "fifty",
    "lattice",
    "large",
    "budgeted",
    "beta-bernoulli",
    "gaussian",
    "gaussian-box",
]
CLASSES: tuple[ClassName, ...] = get_args(ClassName)
MAX_SEED = 2**32 - 1

Probability = Annotated[float, Field(gt=0.0, lt=1.0, allow_inf_nan=False)]


class ValidateConfig(SuiteConfig):
    """What is tried, how often, and what it is held against."""

    delta: Probability = Field(0.05, description="probability with which a bound may ever be below the true harm")
    budget: Probability = Field(0.2, description="harm budget B of an episode; any harm is held against delta + B")
    runs: Annotated[int, Field(ge=1, le=10_000_000)] = Field(
        1000, description="runs of each row; classes that cost more get a fixed part of it, see the column runs"
    )
    horizon_scale: Annotated[float, Field(gt=0.0, le=10.0, allow_inf_nan=False)] = Field(
        1.0, description="factor on every number of steps (1: up to 10,000); exact enumeration keeps its own"
    )
    confidence: Probability = Field(0.999, description="confidence of the Clopper-Pearson interval of each rate")
    threshold: Probability = Field(
        0.2, description="bound up to which a guardrail would accept an action; for what the bounds cost in usefulness"
    )
    classes: tuple[ClassName, ...] = Field(CLASSES, description="classes of hypotheses")
    bounds: tuple[BoundName, ...] = Field(tuple(BOUNDS), description="bounds, those meant to fail among them")
    agents: tuple[Agent, ...] = Field(AGENTS, description="who chooses the actions")
    seed: Annotated[int, Field(ge=0, le=MAX_SEED)] = Field(0, description="seed of all random numbers")
    chunk: Annotated[int, Field(ge=1)] = Field(
        4_000_000, description="hypotheses times runs held in memory at once; no result depends on it"
    )

    @field_validator("classes", "bounds", "agents")
    @classmethod
    def _some_and_each_once(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        if not names:
            raise ValueError("name at least one")
        doubled = sorted({name for name in names if names.count(name) > 1})
        if doubled:
            raise ValueError(f"named more than once: {', '.join(doubled)}")
        return names

    @model_validator(mode="after")
    def _something_is_tried(self) -> ValidateConfig:
        if not groups(self):
            raise ValueError(
                "no case is left: none of the chosen bounds is tried with the chosen classes and agents; "
                "leave one of the three lists out to get all of it"
            )
        return self

    @model_validator(mode="after")
    def _budget_says_something(self) -> ValidateConfig:
        if self.delta + self.budget >= 1.0:
            raise ValueError(
                f"delta + budget is {self.delta + self.budget:g}, which promises nothing; it must be below 1"
            )
        return self
