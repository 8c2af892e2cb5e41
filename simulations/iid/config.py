"""The parameters of the suite `iid`."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from simulations.iid.problems import CASES, CLASSES, Case, ClassName
from simulations.noniid.config import Delta, Some
from simulations.runner.suite import SuiteConfig

Separation = Annotated[float, Field(gt=0.0, le=1.0)]


class IidConfig(SuiteConfig):
    """Observations drawn independently from one truth, in a class and outside it."""

    classes: Annotated[tuple[ClassName, ...], Some] = Field(
        CLASSES, description=f"classes of hypotheses: {', '.join(CLASSES)}"
    )
    cases: Annotated[tuple[Case, ...], Some] = Field(CASES, description=f"what the truth is: {', '.join(CASES)}")
    separations: Annotated[tuple[Separation, ...], Some] = Field(
        (1.0, 0.5, 0.25, 0.12),
        description="distance between neighbouring hypotheses, as a share of the class's widest; the KL divergence "
        "goes with its square",
    )
    delta: Delta = Field(
        0.05, description="of the ratio set; the plausible set takes alpha = delta * the smallest prior"
    )
    horizon: int = Field(10_000, ge=10, le=10**7, description="observations of a run")
    runs: int = Field(400, ge=1, le=10**6, description="runs of every cell")
    seed: int = Field(0, ge=0, lt=2**32, description="all chance follows from it")
    chunk: int = Field(400, ge=1, le=10**5, description="runs simulated together: more take more memory")

    def moments(self) -> tuple[int, ...]:
        """The numbers of observations at which the table looks: 0, 1, 3, 10, 30, ... and the horizon."""
        steps = [base * 10**power for power in range(8) for base in (1, 3)]
        return (0, *(n for n in steps if n < self.horizon), self.horizon)
