"""What is tried: which bound of which class and prior, against which agent and truth, and what should happen."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, TypeAlias, get_args

from simulations.validation.agents import Agent
from simulations.validation.catalogue import BOUNDS, BoundName
from simulations.validation.classes import world

if TYPE_CHECKING:
    from simulations.validation.config import ClassName, ValidateConfig

Feed: TypeAlias = Literal["complete", "withheld", "doubled"]
Expected: TypeAlias = Literal["holds", "fails", "alarms", "open"]
"""Whether the theorem's promise must hold, must be seen broken, an alarm must be seen, or nothing is claimed."""
Case: TypeAlias = Literal[
    "bound at all times",
    "harm budget",
    "false alarms",
    "not promised",
    "double counting",
    "selective reporting",
    "wrong class",
]
CASES: tuple[Case, ...] = get_args(Case)

EXACT_STEPS = 12
"""Steps of an enumerated episode: 4,096 sequences of outcomes."""
EACH = "each"
"""Every member of the class in turn is the truth, and the worst one counts."""

PROMISED: tuple[BoundName, ...] = tuple(name for name, bound in BOUNDS.items() if bound.guarantee == "theorem")
UNPROMISED: tuple[BoundName, ...] = tuple(name for name, bound in BOUNDS.items() if bound.guarantee != "theorem")


@dataclass(frozen=True, slots=True)
class Cell:
    """One row of the table for the bound, and one for each alarm that is looked at.

    Attributes:
        case: what is tried.
        bound: key of `catalogue.BOUNDS`.
        agent: who chooses.
        truth: how the truth is chosen, see the worlds' `truths`, or EACH.
        feed: what becomes of outcomes on their way to the posterior.
        expected: of the bound: `holds` or `fails`.
        outside: of the refutation of the class by a forecaster from outside it: `holds` (false alarms are at most
            delta), `alarms` (it must be seen), `open` (shown, nothing is claimed), None (not looked at).
        empty: the same of its refutation by an empty running intersection.
    """

    case: Case
    bound: BoundName
    agent: Agent
    truth: str
    feed: Feed
    expected: Expected
    outside: Expected | None
    empty: Expected | None

    @property
    def budgeted(self) -> bool:
        """Whether actions are accepted within a harm budget."""
        return self.case == "harm budget"

    @property
    def stream(self) -> str:
        """What the run's random numbers depend on: not on the bound, so that bounds see the same luck."""
        return f"{self.agent}|{self.truth}|{self.feed}|{self.budgeted}"


@dataclass(frozen=True, slots=True)
class Group:
    """Cells that are played by one program: the same class, prior and kernel.

    Attributes:
        world: key of `classes.WORLDS`.
        prior: name of the prior.
        kernel: key of `catalogue.KERNELS`.
        horizon: steps of every run.
        runs: runs of every cell; of an exact one, for every truth, sequences of outcomes.
        exact: whether all sequences of outcomes are enumerated.
        cells: the rows.
    """

    world: ClassName
    prior: str
    kernel: str
    horizon: int
    runs: int
    exact: bool
    cells: tuple[Cell, ...]

    @property
    def truths(self) -> int:
        """Number of truths that each cell plays apart from each other."""
        return (world(self.world).hypotheses or 1) if self.exact else 1

    @property
    def lanes(self) -> int:
        """Number of runs altogether."""
        return len(self.cells) * self.truths * self.runs


@dataclass(frozen=True, slots=True)
class _Block:
    """Cells given by all combinations of a few lists."""

    world: ClassName
    priors: tuple[str, ...]
    bounds: tuple[BoundName, ...]
    settings: tuple[tuple[Agent, str], ...]
    horizon: int
    share: float = 1.0
    case: Case = "bound at all times"
    feed: Feed = "complete"
    expected: Expected = "holds"
    outside: Expected | None = None
    empty: Expected | None = None


_EVERYONE: tuple[tuple[Agent, str], ...] = (
    ("benign", "prior"),
    ("random", "prior"),
    ("greedy", "prior"),
    ("adversarial", "prior"),
    ("adversarial", "rarest"),
)
_STRONGEST: tuple[tuple[Agent, str], ...] = (
    ("greedy", "prior"),
    ("adversarial", "prior"),
    ("adversarial", "rarest"),
)
_EXACT: tuple[tuple[Agent, str], ...] = (("benign", EACH), ("greedy", EACH), ("adversarial", EACH))
_FEW: tuple[tuple[Agent, str], ...] = (("random", "prior"), ("adversarial", "prior"))
_EXTREME: tuple[tuple[Agent, str], ...] = (*_EVERYONE[:4], ("adversarial", "extreme"))
_CONJUGATE: tuple[BoundName, ...] = ("ratio", "ratio-running")
_RUNNING: tuple[BoundName, ...] = ("ratio-running",)
_RATIO: tuple[BoundName, ...] = ("ratio",)
_POINT: tuple[BoundName, ...] = ("iid", "predictive", "mle", "map")


def _outside(where: str) -> tuple[tuple[Agent, str], ...]:
    return (("random", where), ("greedy", where))


def _unsound(
    name: ClassName,
    priors: tuple[str, ...],
    bounds: tuple[BoundName, ...],
    settings: tuple[tuple[Agent, str], ...],
    horizon: int,
    case: Case = "not promised",
    feed: Feed = "complete",
    share: float = 1.0,
) -> _Block:
    """What must be seen to fail."""
    return _Block(name, priors, bounds, settings, horizon, share, case, feed, "fails")


def _wrong(name: ClassName, where: str, horizon: int, share: float, outside: Expected = "open") -> _Block:
    """A truth that is no member of the class: the bound fails, and the class should be refuted.

    How soon depends on how far the truth is from the class; an empty intersection is no reliable alarm at all, since
    the best-fitting member can stay in it for ever.
    """
    return _Block(
        name,
        ("uniform",),
        _RUNNING,
        _outside(where),
        horizon,
        share,
        case="wrong class",
        expected="fails",
        outside=outside,
        empty="open",
    )


_BLOCKS: tuple[_Block, ...] = (
    _Block("enumerated", ("uniform", "skewed"), PROMISED, _EXACT, EXACT_STEPS),
    _unsound("enumerated", ("uniform",), _POINT, (("benign", EACH), ("adversarial", EACH)), EXACT_STEPS),
    _unsound("enumerated", ("uniform",), ("credible", "plausible-unscaled"), _EXACT[2:], EXACT_STEPS),
    _unsound("enumerated", ("uniform",), _RATIO, _EXACT[2:], EXACT_STEPS, "double counting", "doubled"),
    _unsound("enumerated", ("uniform",), _RATIO, _EXACT[2:], EXACT_STEPS, "selective reporting", "withheld"),
    _Block("twins", ("uniform", "skewed"), PROMISED, (*_FEW, ("adversarial", "rarest")), 10_000, 0.5),
    _unsound("twins", ("uniform",), _POINT, _FEW, 1000),
    _unsound("twins", ("uniform",), _RATIO, _FEW, 2000, "double counting", "doubled"),
    _Block("fifty", ("uniform", "Dirichlet(0.05)"), PROMISED, _EVERYONE, 500),
    _unsound("fifty", ("uniform",), UNPROMISED, _FEW, 500),
    _unsound("fifty", ("Dirichlet(0.05)",), UNPROMISED, (("adversarial", "rarest"),), 500),
    _unsound("fifty", ("uniform",), _RATIO, _FEW, 500, "double counting", "doubled"),
    _unsound("fifty", ("uniform",), _RATIO, _FEW, 500, "selective reporting", "withheld"),
    _Block("fifty", ("uniform",), _RUNNING, _FEW, 2000, 0.5, outside="holds", empty="holds"),
    _wrong("fifty", "far", 2000, 0.5, outside="alarms"),
    _wrong("fifty", "near", 2000, 0.5),
    _Block("lattice", ("uniform", "product"), PROMISED, _STRONGEST, 60, 0.5),
    _unsound("lattice", ("uniform",), (*_POINT, "plausible-unscaled"), (("greedy", "prior"),), 60, share=0.5),
    _unsound("lattice", ("uniform",), _RATIO, _EVERYONE[3:4], 60, "selective reporting", "withheld", 0.5),
    _Block("lattice", ("uniform",), _RUNNING, _FEW, 300, 0.25, outside="holds", empty="holds"),
    _wrong("lattice", "far", 300, 0.25, outside="alarms"),
    _wrong("lattice", "near", 300, 0.25),
    _Block("large", ("uniform", "product"), PROMISED, (("greedy", "prior"), ("adversarial", "rarest")), 12, 0.1),
    _Block("budgeted", ("uniform", "product"), PROMISED, _STRONGEST, 500, case="harm budget"),
    _Block(
        "budgeted",
        ("product",),
        tuple(name for name in UNPROMISED if name != "mle"),
        (("adversarial", "rarest"),),
        500,
        case="harm budget",
        expected="fails",
    ),
    _Block("budgeted", ("product",), ("mle",), (("adversarial", "rarest"),), 500, case="harm budget", expected="open"),
    _Block("beta-bernoulli", ("Beta(1, 1)",), _CONJUGATE, _EXTREME, 10_000, 0.2),
    _Block("beta-bernoulli", ("Beta(1, 20)", "Beta(0.05, 0.05)"), _CONJUGATE, _EXTREME, 500),
    _unsound("beta-bernoulli", ("Beta(1, 1)",), ("predictive", "mle"), _FEW, 500),
    _Block("gaussian", ("N(0, 1)", "N(0, 0.1^2)"), _RATIO, _EXTREME, 500),
    _unsound(
        "gaussian",
        ("N(0, 0.1^2)",),
        ("predictive", "map", "credible"),
        (("random", "prior"), ("adversarial", "extreme")),
        500,
    ),
    _Block("gaussian-box", ("N(0, 1)",), _RATIO, _EXTREME, 100, 0.25),
    _Block(
        "gaussian-box",
        ("N(0, 1)",),
        _RATIO,
        _outside("beyond"),
        100,
        0.25,
        case="wrong class",
        expected="fails",
        empty="alarms",
    ),
)


def groups(config: ValidateConfig) -> list[Group]:
    """All that the configuration asks for, in the order of the table; groups of one program are neighbours."""
    found: dict[Group, list[Cell]] = {}
    for block in _BLOCKS:
        if block.world not in config.classes:
            continue
        exact = block.settings[0][1] == EACH
        horizon = block.horizon if exact else max(2, math.ceil(block.horizon * config.horizon_scale))
        runs = 2**block.horizon if exact else max(1, math.ceil(block.share * config.runs))
        for prior in block.priors:
            for bound in block.bounds:
                cells = _cells(block, bound, config.agents) if bound in config.bounds else []
                if cells:
                    empty = Group(block.world, prior, BOUNDS[bound].kernel, horizon, runs, exact, ())
                    found.setdefault(empty, []).extend(cells)
    made = [replace(empty, cells=tuple(cells)) for empty, cells in found.items()]
    # Neighbours share a compiled program; sorting is stable, so the order is otherwise that of the blocks.
    order = {name: place for place, name in enumerate(dict.fromkeys(group.world for group in made))}
    return sorted(made, key=lambda group: (order[group.world], group.kernel))


def _cells(block: _Block, bound: BoundName, agents: Sequence[Agent]) -> list[Cell]:
    return [
        Cell(block.case, bound, agent, truth, block.feed, block.expected, block.outside, block.empty)
        for agent, truth in block.settings
        if agent in agents
    ]
