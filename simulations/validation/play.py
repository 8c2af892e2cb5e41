"""From a group of cases and a range of its runs to what happened in them."""

from __future__ import annotations

import functools
import zlib

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt

from simulations.runner.suite import Result
from simulations.validation import episode
from simulations.validation.agents import AGENTS
from simulations.validation.cases import Cell, Group
from simulations.validation.catalogue import BOUNDS
from simulations.validation.classes import world
from simulations.validation.config import ValidateConfig
from simulations.validation.model import Model
from simulations.validation.worlds import FiniteWorld, Truths, World

LANES = (64, 512, 1024, 4096)
"""How many runs are played at once: few sizes, because a program is compiled for each."""
MOST_WASTE = 0.25
"""Share of runs that may be played for nothing so that fewer and larger chunks are played."""


def lanes_at_once(group: Group, chunk: int) -> int:
    """How many runs are played at once: hypotheses times runs are at most `chunk`, unless one run has more."""
    limit = max(1, chunk // (world(group.world).hypotheses or 1))
    sizes = [lanes for lanes in LANES if lanes <= limit] or [limit]
    # The last chunk is filled up, and what fills it is wasted.
    sparing = [lanes for lanes in sizes if -(-group.lanes // lanes) * lanes <= (1.0 + MOST_WASTE) * group.lanes]
    return max(sparing, default=sizes[0])


@functools.lru_cache(maxsize=256)
def _model(name: str, prior: str, kernel: str, delta: float) -> Model:
    return world(name).model(prior, kernel, delta)


def model_of(group: Group, delta: float) -> Model:
    """The group's model; priors of one class share it where they can, and with it compiled programs."""
    prior = group.prior if world(group.world).hypotheses is None else ""
    return _model(group.world, prior, group.kernel, delta)


@functools.partial(jax.jit, static_argnums=2)
def _luck(streams: jax.Array, runs: jax.Array, draws: int, seed: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Key of each episode, and uniform numbers for its truth: of the seed, the cell's stream and the run's number."""

    def of_one(stream: jax.Array, run: jax.Array) -> tuple[jax.Array, jax.Array]:
        key = jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), stream), run)
        truth_key, episode_key = jax.random.split(key)
        return episode_key, jax.random.uniform(truth_key, (draws,), jnp.float64)

    keys, uniform = jax.vmap(of_one)(streams, runs)
    return keys, uniform


def play(config: ValidateConfig, group: Group, first: int, count: int) -> Result:
    """Play runs first, ..., first + count - 1 of a group.

    Returns:
        The fields of `episode.Record`, each with a first axis of `count` runs.
    """
    at_once = lanes_at_once(group, config.chunk)
    if count > at_once:
        raise ValueError(f"at most {at_once} runs of this group are played at once, got {count}")
    # The last chunk is filled up with runs of the first kind, so that it needs no program of its own.
    number = np.minimum(first + np.arange(at_once), group.lanes - 1)
    place, run = np.divmod(number, group.truths * group.runs)
    truth_index, run = np.divmod(run, group.runs)
    of_class = world(group.world)
    with jax.enable_x64(True):
        lanes = _lanes(config, group, of_class, place, truth_index, run)
        record = episode.simulate(
            model_of(group, config.delta), config.threshold, group.horizon, of_class.data(group.prior), lanes
        )
    return {name: np.asarray(values)[:count] for name, values in record._asdict().items()}


Indices = npt.NDArray[np.intp]


def _lanes(
    config: ValidateConfig, group: Group, of_class: World, place: Indices, truth_index: Indices, run: Indices
) -> episode.Lanes:
    streams = np.array([zlib.crc32(f"{group.world}|{group.prior}|{cell.stream}".encode()) for cell in group.cells])
    keys, uniform = _luck(
        jnp.asarray(streams[place], jnp.uint32), jnp.asarray(run), of_class.draws, jnp.asarray(config.seed, jnp.uint32)
    )
    truths = _truths(group, of_class, place, truth_index, np.asarray(uniform))
    by_cell = [_of_cell(config, cell) for cell in group.cells]
    agent, repeats, withheld, budget = (np.array(column)[place] for column in zip(*by_cell, strict=True))
    return episode.Lanes(
        key=keys,
        agent=jnp.asarray(agent),
        mean=jnp.asarray(truths.mean),
        harm=jnp.asarray(truths.harm),
        alpha=jnp.asarray(_alpha(config, group, of_class, place, truths)),
        repeats=jnp.asarray(repeats),
        withheld=jnp.asarray(withheld),
        budget=jnp.asarray(budget),
        outcomes=jnp.asarray(run if group.exact else np.full(len(run), -1)),
    )


def _of_cell(config: ValidateConfig, cell: Cell) -> tuple[int, float, bool, float]:
    budget = config.budget if cell.budgeted else np.inf
    return AGENTS.index(cell.agent), 2.0 if cell.feed == "doubled" else 1.0, cell.feed == "withheld", budget


def _truths(
    group: Group, of_class: World, place: Indices, truth_index: Indices, uniform: npt.NDArray[np.float64]
) -> Truths:
    if group.exact:
        assert isinstance(of_class, FiniteWorld)
        return of_class.members(group.prior, truth_index)
    by_cell = [of_class.truths(group.prior, cell.truth, uniform) for cell in group.cells]
    lane = np.arange(len(place))
    columns = (np.stack(column)[place, lane] for column in zip(*by_cell, strict=True))
    return Truths(*columns)


def _alpha(
    config: ValidateConfig, group: Group, of_class: World, place: Indices, truths: Truths
) -> npt.NDArray[np.float64]:
    """Level of the plausible set of each run; a truth outside the class has no prior mass and gets the smallest."""
    least = float(np.exp(of_class.priors[group.prior]).min()) if isinstance(of_class, FiniteWorld) else 1.0
    mass = np.where(np.isnan(truths.prior_mass), least, truths.prior_mass)
    rule = np.array([BOUNDS[cell.bound].alpha for cell in group.cells])[place]
    return config.delta * np.select([rule == "truth", rule == "least"], [mass, np.full(len(mass), least)], 1.0)
