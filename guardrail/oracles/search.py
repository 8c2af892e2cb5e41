"""The search for the most harmful hypothesis of a set, block by block, most promising first, stopping early.

The family knows an upper bound on the harm score of every row without looking at its hypotheses (its ceiling).
Blocks are examined in the order of their ceilings until none is left whose ceiling exceeds the best score found:
branch and bound, exact. Blocks that no member of the set inhabits are never examined for it. The posterior
predictive harm needs the blocks that hold mass besides; those that together hold less than NEGLIGIBLE_MASS are left
out and counted as wholly harmful, so it can be too high by that much.

A search can be stopped between blocks and resumed. What it can promise when it is stopped is the larger of the best
score and the largest ceiling of what was not examined (MATH: a branch and bound that stops early reports its
upper end), so it errs toward rejecting.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from guardrail import bounds
from guardrail.oracles.base import MAX_BATCH
from guardrail.policy.schema import BoundSpec, IidBound, PlausibleBound, RatioBound

if TYPE_CHECKING:
    from guardrail.hypotheses.base import Arrays, EnumeratedFamily
    from guardrail.oracles.blocks import Blocks

NEGLIGIBLE_MASS = 1e-9
"""Posterior mass that the predictive harm may take as wholly harmful instead of looking at it."""
NOWHERE = np.int64(2**63 - 1)
"""A place behind every hypothesis."""
UNLIMITED = np.int32(2**31 - 1)
"""A budget that no search uses up."""


class Derived(NamedTuple):
    """What every check of one posterior shares; a pure function of it.

    Attributes:
        belief: float64[H] or float32[H], posterior masses times `scale`, if harm is maximised over a set; else
            float64[H], log posterior masses.
        members: bool[H], that set; None if the bound has none.
        inhabited: bool[rows], whether a row holds members; None if the bound has no set.
        mass: float64[B], posterior mass of every block.
        scale: float64[], what the masses in `belief` add up to.
    """

    belief: jax.Array
    members: jax.Array | None
    inhabited: jax.Array | None
    mass: jax.Array
    scale: jax.Array


class Progress(NamedTuple):
    """How far the search for each input is; D is the number of devices, B of blocks.

    Attributes:
        best: float64[MAX_BATCH, D], the largest score of a member on each device; -inf if none was found.
        place: int64[MAX_BATCH, D], the hypothesis that has it.
        examined: bool[MAX_BATCH, B], which blocks were.
        mean: float64[MAX_BATCH, B], the part of the predictive harm from each examined block.
        results: float64[MAX_BATCH, COLUMNS], what can be said of each input now.
    """

    best: jax.Array
    place: jax.Array
    examined: jax.Array
    mean: jax.Array
    results: jax.Array


class Result(NamedTuple):
    """One line of `Progress.results`.

    Attributes:
        value: the bound.
        predictive: posterior predictive harm; while the search is unfinished an upper bound on it.
        harm: of the cautious hypothesis.
        place: the cautious hypothesis's number.
        usable: 1 if these are numbers in [0, 1]; else 0.
        found: 1 if the cautious hypothesis attains the bound; else 0.
        complete: 1 if nothing that could raise the bound is left; else 0.
        settled: 1 if the predictive harm needs no further block; else 0.
        scanned: share of the blocks that were examined.
    """

    value: float
    predictive: float
    harm: float
    place: float
    usable: float
    found: float
    complete: float
    settled: float
    scanned: float


COLUMNS = len(Result._fields)


class Search:
    """The functions that are traced, for one family, bound and cut into blocks."""

    def __init__(self, family: EnumeratedFamily, spec: BoundSpec, blocks: Blocks) -> None:
        self.family, self.spec, self.blocks = family, spec, blocks
        self.over_set = isinstance(spec, PlausibleBound | RatioBound)

    def finish(self, arrays: tuple[Arrays, Arrays], derived: Derived, inputs: jax.Array) -> jax.Array:
        """Search for each input to the end: `Progress.results`."""
        return self.advance(arrays, derived, inputs, self.start(), jnp.int32(UNLIMITED)).results

    def start(self) -> Progress:
        """The search before any block."""
        devices, count = self.blocks.devices, self.blocks.count
        return Progress(
            # Without a dtype of its own the first array would be another type than what `advance` returns.
            jnp.full((MAX_BATCH, devices), -jnp.inf, jnp.float64),
            jnp.full((MAX_BATCH, devices), -1, jnp.int64),
            jnp.zeros((MAX_BATCH, count), jnp.bool_),
            jnp.zeros((MAX_BATCH, count), jnp.float64),
            jnp.zeros((MAX_BATCH, COLUMNS), jnp.float64),
        )

    def advance(
        self,
        arrays: tuple[Arrays, Arrays],
        derived: Derived,
        inputs: jax.Array,
        progress: Progress,
        budget: jax.Array,
    ) -> Progress:
        """Examine up to `budget` further blocks for each input.

        Args:
            arrays: the family's, those with an entry for each row, and the others.
            derived: of the posterior.
            inputs: float64[MAX_BATCH, F + 1], rows, and in the first line's last place their number.
            progress: of the search so far.
            budget: int32[], on each device; at least 1.
        """
        number = inputs[0, -1].astype(jnp.int32)

        def step(place: jax.Array, progress: Progress) -> Progress:
            row = inputs[place, :-1]
            mine = jax.tree.map(lambda array: array[place], progress)
            if self.over_set:
                after = self._search(arrays, derived, row, mine, budget)
            else:
                after = mine._replace(results=self._whole(arrays, derived, row))
            usable = after.results[4].astype(bool) & jnp.all(jnp.isfinite(row))
            after = after._replace(results=after.results.at[4].set(usable.astype(jnp.float64)))
            return Progress(
                *[
                    lax.dynamic_update_index_in_dim(all_, one, place, 0)
                    for all_, one in zip(progress, after, strict=True)
                ]
            )

        return cast("Progress", lax.fori_loop(0, number, step, progress))

    # ---------------------------------------------------------------- harm maximised over a set

    def _search(
        self, arrays: tuple[Arrays, Arrays], derived: Derived, row: jax.Array, progress: Progress, budget: jax.Array
    ) -> Progress:
        of_class = (arrays[0], derived.belief, derived.members, derived.inhabited, derived.mass)
        so_far = (progress.best, progress.place, progress.examined, progress.mean)
        best, index, examined, mean, open_ceiling = self.blocks.on_each_device(
            self._on_one_device, (*of_class, *so_far), (arrays[1], row, derived.scale, budget)
        )
        top = jnp.max(best)
        winner = jnp.min(jnp.where(best == top, index, NOWHERE))
        ceiling = jnp.max(open_ceiling)
        needed = self._needed(derived.mass)
        predictive = self.blocks.total(jnp.where(needed & examined, mean, derived.mass))
        scanned = jnp.mean(examined.astype(jnp.float64))
        results = self._conclude(top, winner, ceiling, predictive, jnp.all(examined | ~needed), scanned)
        return Progress(best, index, examined, mean, results)

    def _conclude(
        self,
        top: jax.Array,
        winner: jax.Array,
        ceiling: jax.Array,
        predictive: jax.Array,
        settled: jax.Array,
        scanned: jax.Array,
    ) -> jax.Array:
        harm = self.family.harm_from_score(top)
        complete = ~(ceiling > top)
        unexamined = jnp.where(jnp.isfinite(ceiling), self.family.harm_from_score(ceiling), 1.0)
        value = jnp.where(
            complete, harm, jnp.maximum(jnp.minimum(unexamined, 1.0), jnp.where(top > -jnp.inf, harm, 0.0))
        )
        predictive = jnp.minimum(predictive, 1.0)
        found = (top > -jnp.inf) & (harm == value)
        numbers = jnp.stack([value, predictive])
        usable = jnp.all((numbers >= 0.0) & (numbers <= 1.0)) & (found | ~complete)
        flags = (usable, found, complete, settled)
        return jnp.stack(
            [value, predictive, harm, winner.astype(jnp.float64), *(f.astype(jnp.float64) for f in flags), scanned]
        )

    def _on_one_device(self, cut: Any, whole: Any) -> Any:
        own, belief, members, inhabited, mass, best, index, examined, mean = cut
        shared, row, scale, budget = whole
        first, here = self.blocks.first_of_device(), self.blocks.of_device
        of_rows = self.family.harm_score_ceiling({**own, **shared}, row)
        # What has no ceiling that is a number must be looked at.
        of_rows = jnp.where(inhabited, jnp.where(jnp.isnan(of_rows), jnp.inf, of_rows), -jnp.inf)
        ceilings, needed = self.blocks.of_rows(of_rows), self._needed(mass)

        def next_block(state: Any) -> tuple[jax.Array, jax.Array]:
            """Which block is next, and whether there is one."""
            best, _, examined, _, _ = state
            promising = jnp.where(examined, -jnp.inf, ceilings)
            first_choice = jnp.argmax(promising)
            wanted = promising[first_choice] > best[0]
            left = needed & ~examined
            return jnp.where(wanted, first_choice, jnp.argmax(left)), wanted | jnp.any(left)

        def examine(state: Any) -> Any:
            best, index, examined, mean, budget = state
            place, _ = next_block(state)
            part = self.blocks.block((own, belief, members), place)
            score, found, of_mass = self._examine({**part[0], **shared}, part[1], part[2], row)
            found += (first + place) * (self.blocks.rows * self.blocks.width)
            # Among equal scores the first hypothesis; a NaN takes over and stays.
            better = (score > best[0]) | ((score == best[0]) & (found < index[0])) | jnp.isnan(score)
            best, index = jnp.where(better, score, best), jnp.where(better, found, index)
            return best, index, examined.at[place].set(True), mean.at[place].set(of_mass / scale), budget - 1

        state = (best, index, examined, mean, budget)
        if here == 1:
            state = examine(state)
        else:
            state = lax.while_loop(lambda state: (state[4] > 0) & next_block(state)[1], examine, state)
        best, index, examined, mean, _ = state
        left = jnp.max(jnp.where(examined, -jnp.inf, ceilings), keepdims=True)
        return best, index, examined, mean, left

    def _examine(
        self, arrays: Arrays, belief: jax.Array, members: jax.Array, row: jax.Array
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        """The largest score of a member in a block, its place in the block, and the block's part of the mean."""
        # Harm does not decrease with the score, so the largest harm over the set is that of the largest
        # score: `bounds.set_bound`, which defines the bound, without the harm of every hypothesis.
        score = self.family.harm_score(arrays, row)
        best, place = _largest(score, members, self.blocks.width)
        shape = (-1, self.blocks.width)
        harm = self.family.harm_from_score(score.reshape(shape).astype(belief.dtype))
        of_rows = jnp.sum(belief.reshape(shape) * harm, axis=1)
        return best, place, jnp.sum(of_rows.astype(jnp.float64))

    def _needed(self, mass: jax.Array) -> jax.Array:
        """bool[...]: the blocks without which the predictive harm would be off by more than NEGLIGIBLE_MASS."""
        return ~(mass <= NEGLIGIBLE_MASS / self.blocks.count)

    # ---------------------------------------------------------------- bounds that look at every hypothesis

    def _whole(self, arrays: tuple[Arrays, Arrays], derived: Derived, row: jax.Array) -> jax.Array:
        def block(own: Any, whole: Any) -> jax.Array:
            shared, row = whole
            return self.family.harm_from_score(self.family.harm_score({**own, **shared}, row))

        belief = self.blocks.everywhere_whole(derived.belief)
        harms = self.blocks.everywhere_whole(self.blocks.each(block, arrays[0], (arrays[1], row)))
        predictive = bounds.predictive(belief, harms[:, None])[0]
        if isinstance(self.spec, IidBound):
            value = bounds.iid(belief, harms[:, None])[0]
            # Of the hypotheses with that harm the most probable one has the largest product.
            best, index = _largest(belief, harms == value, self.blocks.width)
            harm = value
        else:
            best, index = _largest(belief, jnp.ones(self.blocks.size, jnp.bool_), self.blocks.width)
            value, harm = predictive, harms[index]
        numbers = jnp.stack([value, predictive, harm])
        usable = jnp.all((numbers >= 0.0) & (numbers <= 1.0)) & (best > -jnp.inf)
        rest = (index.astype(jnp.float64), usable.astype(jnp.float64), *[jnp.float64(1.0)] * 4)
        return jnp.concatenate([numbers, jnp.stack(rest)])


def _largest(values: jax.Array, members: jax.Array, width: int) -> tuple[jax.Array, jax.Array]:
    """The largest of float64[P] over the members and the smallest index that attains it; -inf without members."""
    masked = jnp.where(members, values, -jnp.inf).reshape(-1, width)
    of_row = jnp.max(masked, axis=1)
    row = jnp.argmax(of_row)
    column = jnp.argmax(lax.dynamic_index_in_dim(masked, row, keepdims=False))
    return of_row[row], row.astype(jnp.int64) * width + column
