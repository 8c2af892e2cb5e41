"""The parameters of the suite `gridworlds`."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from simulations.gridworlds.worlds import NAMES, Name
from simulations.noniid.config import Delta, Some
from simulations.runner.suite import SuiteConfig

Level = Annotated[Delta, Field(lt=1.0)]
Limit = Annotated[float, Field(ge=0.0, lt=1.0)]


class GridworldsConfig(SuiteConfig):
    """A walker that seeks the goal, in worlds whose slipperiness its guardrail does not know."""

    worlds: Annotated[tuple[Name, ...], Some] = Field(NAMES, description=f"worlds: {', '.join(NAMES)}")
    deltas: Annotated[tuple[Level, ...], Some] = Field(
        (0.01, 0.1, 0.5), description="probability with which the bound may fail at some time"
    )
    thresholds: Annotated[tuple[Limit, ...], Some] = Field(
        (0.1, 0.3), description="a step whose harm bound exceeds it is rejected"
    )
    runs: int = Field(20, ge=2, le=10**6, description="runs of every cell: in each the guardrail begins at its prior")
    episodes: int = Field(15, ge=4, le=10**5, description="episodes of a run, in which the guardrail goes on learning")
    steps: int = Field(100, ge=1, le=10_000, description="longest episode")
    epsilon: float = Field(
        0.1, ge=0.0, le=1.0, description="probability of a random step; else the walker takes the shortest way"
    )
    seed: int = Field(0, ge=0, lt=2**32, description="all chance follows from it")
    chunk: int = Field(5, ge=1, le=10**5, description="runs between two savings")
