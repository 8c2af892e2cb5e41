"""The hypotheses of a finite Markov decision process as plain numbers: grids of weights, and successors of a state.

Shared by the checks, which need no numerics, and by the family, which computes with them.
"""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING

from guardrail.policy.memory_schema import FiniteMdp, Kernel, KernelEntry, KernelMixture, WeightGrid

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

MAX_ENTRIES = 2**24
"""Most transition probabilities of a class: states x actions x successors x hypotheses; they take 128 MiB."""

MAX_COMBINATIONS = 2**20
"""Most combinations of a mixture's weights."""

ROUNDING = 1e-12
"""Weights that sum to one within it sum to one: the decimal numbers of a grid are rounded."""


def combinations(mixture: KernelMixture) -> Iterator[tuple[float, ...]]:
    """The weights of every hypothesis, in the order of `kernel_names`; the last grid runs fastest.

    Combinations of grid points that leave the kernel `rest` less than nothing are no hypotheses. Weights are
    divided by their sum, which differs from one by rounding only.
    """
    names = kernel_names(mixture)[1:]
    for given in itertools.product(*(grid_points(mixture.weights[name]) for name in names)):
        rest = math.fsum((1.0, *(-weight for weight in given)))
        if rest >= -ROUNDING:
            weights = (rest if rest > ROUNDING else 0.0, *given)
            total = math.fsum(weights)
            yield tuple(weight / total for weight in weights)


def grid_size(mixture: KernelMixture) -> int:
    """Number of combinations of grid points, those that are no hypotheses included."""
    return math.prod(grid.points for grid in mixture.weights.values())


def kernel_names(mixture: KernelMixture) -> tuple[str, ...]:
    """The kernel that has the rest, then the others by name."""
    return (mixture.rest, *sorted(mixture.kernels.keys() - {mixture.rest}))


def grid_points(grid: WeightGrid) -> tuple[float, ...]:
    """The weights on a grid, lowest first."""
    if grid.points == 1:
        return (grid.lower,)
    step = (grid.upper - grid.lower) / (grid.points - 1)
    return (*(grid.lower + place * step for place in range(grid.points - 1)), grid.upper)


def kernels_of(family: FiniteMdp) -> dict[str, Kernel]:
    """All kernels of a class by name: those of the table's hypotheses, or those that are mixed."""
    if family.mixture is not None:
        return {name: family.mixture.kernels[name] for name in kernel_names(family.mixture)}
    return {hypothesis.name: hypothesis.kernel for hypothesis in family.table or ()}


def distribution(entry: KernelEntry) -> dict[int, float]:
    """Next state to probability; sum 1 up to rounding."""
    if not isinstance(entry, dict):
        return {entry: 1.0}
    total = math.fsum(entry.values())
    return {state: mass / total for state, mass in entry.items()}


def successors(kernels: Iterable[Kernel]) -> list[list[list[int]]]:
    """For each state and action the states that some kernel can lead to, ascending."""
    several = list(kernels)
    return [
        [sorted({state for entry in entries for state in distribution(entry)}) for entries in zip(*rows, strict=True)]
        for rows in zip(*several, strict=True)
    ]
