"""The shapes of worlds with states: hidden Markov models, finite Markov decision processes, integer outcomes."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from pydantic import Field

from guardrail.policy.schema_base import CategoryKey, Expression, Finite, Identifier, Model, Positive, Probability

MAX_HIDDEN_STATES = 64
MAX_MOVES = 256
"""Most actions of a finite Markov decision process."""
MAX_OUTCOMES = 4_096
"""Most values of an integer outcome."""


class NormalSpec(Model):
    """Parameters of a Gaussian outcome."""

    mean: Finite = Field(description="in the outcome's unit")
    sd: Positive = Field(description="standard deviation in the outcome's unit")


Chances = Annotated[tuple[Probability, ...], Field(min_length=1, max_length=MAX_HIDDEN_STATES)]
Matrix = Annotated[tuple[Chances, ...], Field(min_length=1, max_length=MAX_HIDDEN_STATES)]
Normals = Annotated[tuple[NormalSpec, ...], Field(min_length=1, max_length=MAX_HIDDEN_STATES)]


class HiddenMarkovHypothesis(Model):
    """One hidden Markov model: each action moves the hidden state, then the new state decides over the outcome."""

    name: Annotated[str, Field(min_length=1, max_length=100)]
    prior: Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)] | None = Field(
        None, description="prior mass; give it for every hypothesis (sum 1) or for none (uniform)"
    )
    initial: Chances = Field(description="P(hidden state) before the first action; sum 1")
    transitions: dict[CategoryKey, Matrix] | Matrix = Field(
        description="P(next hidden state), one row for each state, per category of the action or one for all"
    )
    rates: dict[CategoryKey, Chances] | Chances | None = Field(
        None, description="P(outcome = true) in each hidden state, per category or for all; for a bool outcome"
    )
    normals: dict[CategoryKey, Normals] | Normals | None = Field(
        None, description="Gaussian outcome in each hidden state, per category or for all; for a number outcome"
    )


class HiddenMarkov(Model):
    """A named table of hidden Markov models: what an outcome tells depends on all outcomes before it."""

    family: Literal["hidden-markov"]
    category: Expression | None = Field(None, description="CEL, a string or an integer; none if there is one category")
    table: Annotated[tuple[HiddenMarkovHypothesis, ...], Field(min_length=1, max_length=1_000)]


StateNumber = Annotated[int, Field(ge=0, lt=MAX_OUTCOMES)]
KernelEntry: TypeAlias = StateNumber | dict[StateNumber, Positive]
"""The next state, or {next state: probability}."""
KernelRow = Annotated[tuple[KernelEntry, ...], Field(min_length=1, max_length=MAX_MOVES)]
Kernel = Annotated[tuple[KernelRow, ...], Field(min_length=1, max_length=MAX_OUTCOMES)]
"""One row for each state, one entry for each action."""


class MdpHypothesis(Model):
    """One hypothesis about the transitions of a finite Markov decision process."""

    name: Annotated[str, Field(min_length=1, max_length=100)]
    prior: Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)] | None = Field(
        None, description="prior mass; give it for every hypothesis (sum 1) or for none (uniform)"
    )
    kernel: Kernel = Field(description="for each state the next state under each action, or {next: probability}")


class WeightGrid(Model):
    """An evenly spaced grid for the weight of one kernel."""

    lower: Probability
    upper: Probability
    points: Annotated[int, Field(ge=1, le=10_000)]


class KernelMixture(Model):
    """Every combination of the kernels' weights on their grids is one hypothesis; the prior is uniform."""

    kernels: dict[Identifier, Kernel] = Field(min_length=2, max_length=8, description="name to transitions")
    weights: dict[Identifier, WeightGrid] = Field(description="probability that a step follows the kernel of that name")
    rest: Identifier = Field(description="the kernel that has the rest of the probability")


class FiniteMdp(Model):
    """A finite Markov decision process with unknown transitions, whose state is observed.

    The outcome is the next state, and `harm` names the unsafe states. The harm of an action is the probability of
    an unsafe state within `horizon` steps: first the action, then the default policy.
    """

    family: Literal["finite-mdp"]
    horizon: Annotated[int, Field(ge=1, le=1_000)] = Field(description="steps, the action's own included")
    default_policy: Literal["uniform"] | tuple[StateNumber, ...] | None = Field(
        None,
        description="what is done after the action: an action for each state, or uniform; needed for a horizon above 1",
    )
    terminal: tuple[StateNumber, ...] = Field((), description="states that end an episode without harm")
    table: Annotated[tuple[MdpHypothesis, ...], Field(min_length=1, max_length=10_000)] | None = Field(
        None, description="named hypotheses; give this or a mixture"
    )
    mixture: KernelMixture | None = Field(None, description="a grid of mixtures of a few kernels; give this or a table")


class IntegerOutcomeSpec(Model):
    """An outcome with finitely many values, for instance the state that was reached."""

    name: Identifier
    type: Literal["integer"]
    count: Annotated[int, Field(ge=2, le=MAX_OUTCOMES)] = Field(description="the values are 0, ..., count - 1")
