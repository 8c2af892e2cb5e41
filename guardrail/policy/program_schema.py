"""World models that users write: how a policy names a program, and how it is used."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from guardrail.policy.schema_base import (
    CategoryCount,
    CategoryKey,
    Expression,
    Finite,
    Identifier,
    Model,
    OpenProbability,
)

DRAWS_BLOCK = 1_000
"""Draws are made in blocks of this many, each from a key of its own: a class does not depend on how it is computed."""
MAX_PROGRAM_HYPOTHESES = 10**8
MAX_GRID_SITES = 4
MAX_OBSERVATIONS = 10_000
"""Most observations that a `posterior` program conditions on: it keeps them all."""

ModelPath = Annotated[
    str,
    Field(
        pattern=r"^[A-Za-z0-9_][A-Za-z0-9_./-]{0,200}\.py:[A-Za-z_][A-Za-z0-9_]{0,62}$",
        description="file.py:function, the file relative to the policy's folder",
    ),
]
DataPath = Annotated[
    str,
    Field(
        pattern=r"^[A-Za-z0-9_][A-Za-z0-9_./-]{0,200}$",
        description="a file relative to the policy's folder, not above it",
    ),
]
Seed = Annotated[int, Field(ge=0, lt=2**32)]


class SampledUse(Model):
    """The class is N draws from the program's prior. The theorem holds relative to these N hypotheses."""

    kind: Literal["sampled"]
    draws: Annotated[int, Field(ge=1_000, le=MAX_PROGRAM_HYPOTHESES)] = Field(
        description="N, the number of hypotheses, a multiple of 1000; each has prior mass 1 / N"
    )
    seed: Seed = Field(0, description="of the draws; another seed is another class")


class GridUse(Model):
    """The class is a product of midpoint quantiles of the latent sites. The theorem holds relative to that grid."""

    kind: Literal["grid"]
    points: Annotated[int, Field(ge=2, le=100_000)] | dict[Identifier, Annotated[int, Field(ge=1, le=100_000)]] = Field(
        description="points for each latent site (at most 4, each one number), or a mapping from site to points"
    )


class PosteriorUse(Model):
    """The posterior is approximated by particles. Every bound is an estimate, without a guarantee."""

    kind: Literal["posterior"]
    method: Literal["nuts", "svi", "smc"]
    particles: Annotated[int, Field(ge=100, le=100_000)] = Field(1_000, description="draws kept from the posterior")
    seed: Seed = 0
    refresh_every: Annotated[int, Field(ge=1, le=MAX_OBSERVATIONS)] = Field(
        50, description="observations between two runs of the method; in between, particles are re-weighted"
    )
    warmup: Annotated[int, Field(ge=50, le=100_000)] = Field(
        500, description="warm-up steps of nuts, optimisation steps of svi; of no effect on smc"
    )
    starts: Annotated[int, Field(ge=1, le=1_000)] = Field(32, description="starts of the search for the largest harm")
    search_steps: Annotated[int, Field(ge=1, le=10_000)] = Field(100, description="gradient steps from each start")


class MonteCarloHarm(Model):
    """Harm by simulation, for an outcome whose distribution has no cdf: an estimate for one check at a time."""

    samples: Annotated[int, Field(ge=100, le=1_000_000)] = Field(description="simulated outcomes for each hypothesis")
    delta: OpenProbability = Field(
        description="error probability of the one-sided confidence limit; taken from the bound's delta"
    )


class PriorPredictive(Model):
    """What outcomes are plausible before any data; used by `guardrail policy lint`, and its inputs when loading."""

    lower: Finite | None = Field(None, description="smallest plausible outcome, in the outcome's unit")
    upper: Finite | None = Field(None, description="largest plausible outcome, in the outcome's unit")
    inputs: tuple[dict[Identifier, Finite | tuple[Finite, ...] | CategoryKey], ...] = Field(
        (), max_length=20, description="example inputs, by feature (and category); every feature 1.0 if none is given"
    )


class ProgramLimits(Model):
    """What a program may use. Past it the program is stopped, and the check is rejected."""

    seconds: Annotated[float, Field(gt=0, le=600, allow_inf_nan=False)] = Field(
        10.0, description="wall clock for one check or a few observations"
    )
    load_seconds: Annotated[float, Field(gt=0, le=3_600, allow_inf_nan=False)] = Field(
        120.0, description="wall clock for starting, drawing the class and compiling"
    )
    memory_mib: Annotated[int, Field(ge=256, le=1_048_576)] = Field(4_096, description="memory, in MiB")


class _Program(Model):
    """What both kinds of program share."""

    model: ModelPath
    data: tuple[DataPath, ...] = Field(
        (),
        max_length=100,
        description="files that the program reads; they and every *.py beside it are in the revision",
    )
    use: Annotated[SampledUse | GridUse | PosteriorUse, Field(discriminator="kind")]
    category: Expression | None = Field(
        None, description="CEL, a string or an integer; reaches the program as inputs['category'], an index"
    )
    categories: tuple[CategoryKey, ...] | CategoryCount | None = Field(
        None, description="the categories' names in the order of their index, or {count: N}; required with `category`"
    )
    monte_carlo: MonteCarloHarm | None = None
    prior_predictive: PriorPredictive = PriorPredictive()
    limits: ProgramLimits = ProgramLimits()


class NumpyroProgram(_Program):
    """A NumPyro model: latent sites are what is unknown, the site with the outcome's name is observed."""

    family: Literal["numpyro"]


class PyroProgram(_Program):
    """A Pyro model: latent sites are what is unknown, the site with the outcome's name is observed."""

    family: Literal["pyro"]


ProgramSpec = NumpyroProgram | PyroProgram
