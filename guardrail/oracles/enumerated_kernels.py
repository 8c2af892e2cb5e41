"""The compiled programs of the enumerated oracle: condition, derive, search.

Each oracle has one program for each, whatever the number of inputs: inputs come in a buffer of fixed size
and a loop runs over the first n of them. So a result cannot depend on how inputs were batched,
and nothing is compiled again. Arrays over hypotheses are worked through block by block (see `blocks`).
Log weights are computed element by element, with maxima and minima, so they are the same bit for bit on
any number of threads and devices; sums (the posterior's mass, the predictive harm) may differ in the last
place between machines with different processors.

Rounding. Membership of a set must err toward inclusion, so a state carries `slack`: a bound on how far
rounding has moved any log weight from its exact value. Conditioning computes
`(log_weight - peak) + log_likelihood`. The family bounds the error of the last term; each of the two
operations adds at most half an EPSILON times its result, and both results are at most the larger of
the spread of the weights before and the size of the weights after. Subtracting the peak (an exact
maximum, the same for every hypothesis) cancels in the posterior and keeps these sizes small. A
normalised log posterior differs from the exact one by the slack of its own weight, that of the total
mass, and the rounding of a sum of H positive terms, at most H * EPSILON relatively.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from guardrail import bounds
from guardrail.bounds.ratio import log_excess_of_part
from guardrail.hypotheses.base import SufficientStatistics
from guardrail.oracles import search
from guardrail.oracles.base import MAX_BATCH
from guardrail.policy.schema import BoundSpec, PlausibleBound, RatioBound

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    from guardrail.hypotheses.base import Arrays, EnumeratedFamily
    from guardrail.oracles.blocks import Blocks

EPSILON = float(np.finfo(np.float64).eps)
MIN_SLACK = 1e-12
"""Slack of membership before any observation: what computing a prior and a cut costs."""
NEGLIGIBLE = {np.dtype(np.float64): 1e-150, np.dtype(np.float32): 1e-18}
"""Posterior masses below it count as 0 in sums: that can only lower the evidence, which is the sound side,
and no product becomes a denormal number, on which processors are slow."""
LOG_NEGLIGIBLE = math.log(NEGLIGIBLE[np.dtype(np.float64)])
SINGLE_PRECISION_FROM = 2**16
"""From this class size on the predictive harm, where it is only shown beside a bound, is computed in float32."""


class Account(NamedTuple):
    """The scalars of a posterior, float64[].

    Attributes:
        peak: the largest log weight; -inf if every hypothesis is impossible.
        lowest: the smallest finite log weight.
        slack: nats by which rounding may have moved a log weight.
        failed: 1 if something that is not a finite number was observed; the rest is then as before it. Else 0.
    """

    peak: jax.Array
    lowest: jax.Array
    slack: jax.Array
    failed: jax.Array


class Posterior(NamedTuple):
    """What observations determine.

    Attributes:
        log_weight: float64[H], log of prior times likelihood, up to a constant.
        account: float64[4], an `Account` in one array: every argument of a program costs some microseconds.
        members: bool[H], the running intersection; None if the bound has none.
    """

    log_weight: jax.Array
    account: jax.Array
    members: jax.Array | None


class Sums(NamedTuple):
    """Observations of a family with sufficient statistics.

    Attributes:
        sums: float64[S], the running sums.
        corrections: float64[S], what rounding has taken from them.
        failed: float64[], 1 if something that is not a finite number was observed; the rest is then as before
            it. Else 0.
    """

    sums: jax.Array
    corrections: jax.Array
    failed: jax.Array


class Kernels(NamedTuple):
    """The programs of one oracle; call them under `jax.enable_x64(True)`.

    Attributes:
        add: (sums, observations) -> sums.
        posterior: (arrays, log_prior, sums) -> posterior; this and `add` for families with sufficient statistics.
        condition: (arrays, log_prior, posterior, observations) -> posterior.
        derive: (log_prior, posterior) -> (derived, float64[2]: log of the sum of exp(log_weight - peak), and 1 if no
            hypothesis is left, else 0).
        finish: (arrays, derived, inputs) -> float64[MAX_BATCH, search.COLUMNS].
        start: () -> progress.
        advance: (arrays, derived, inputs, progress, budget) -> progress; see `search.Search` for these three.

    `arrays` are the family's, `(cut, whole)`. `log_prior` is float64[H], or float64[1] if it is constant.
    `observations` is float64[MAX_BATCH, F + 2]: row, outcome, and in the first line's last place their number;
    `inputs` is float64[MAX_BATCH, F + 1]: row, and likewise.
    """

    add: Callable[..., Sums]
    posterior: Callable[..., Posterior]
    condition: Callable[..., Posterior]
    derive: Callable[..., tuple[search.Derived, jax.Array]]
    finish: Callable[..., jax.Array]
    start: Callable[[], search.Progress]
    advance: Callable[..., search.Progress]


def kernels(
    family: EnumeratedFamily, bound: BoundSpec, blocks: Blocks, log_prior_mass: float, prior_slack: float
) -> Kernels:
    """The programs for a family under a bound, compiled at their first call and shared with equal families.

    Args:
        family: the hypothesis class.
        bound: the policy's bound.
        blocks: how the class is cut.
        log_prior_mass: log of the prior's total mass, which rounding may have left off 0.
        prior_slack: most by which rounding has moved a log prior mass, in nats.
    """
    identity = (type(family), family.trace_key, blocks.identity, bound, log_prior_mass, prior_slack)
    return _compile(_Key(identity, family, bound, blocks, log_prior_mass, prior_slack))


@dataclass(frozen=True)
class _Key:
    identity: Hashable
    family: EnumeratedFamily = field(compare=False)
    bound: BoundSpec = field(compare=False)
    blocks: Blocks = field(compare=False)
    log_prior_mass: float = field(compare=False)
    prior_slack: float = field(compare=False)


@lru_cache(maxsize=64)
def _compile(key: _Key) -> Kernels:
    programs = _Programs(key)
    searching = search.Search(key.family, key.bound, key.blocks)
    return Kernels(
        jax.jit(programs.add),
        jax.jit(programs.posterior),
        jax.jit(programs.condition),
        jax.jit(programs.derive),
        jax.jit(searching.finish),
        jax.jit(searching.start),
        jax.jit(searching.advance),
    )


class _Programs:
    """The functions that are traced, for one family and bound."""

    def __init__(self, key: _Key) -> None:
        self.family, self.spec, self.blocks = key.family, key.bound, key.blocks
        self.size = key.blocks.size
        self.mass_type = np.dtype(np.float32 if self.size >= SINGLE_PRECISION_FROM else np.float64)
        self.prior_correction = max(key.log_prior_mass, 0.0)
        self.prior_slack = key.prior_slack

    def condition(
        self, arrays: tuple[Arrays, Arrays], log_prior: jax.Array, posterior: Posterior, observations: jax.Array
    ) -> Posterior:
        def step(place: jax.Array, posterior: Posterior) -> Posterior:
            row, outcome = observations[place, :-2], observations[place, -2]
            return self._condition_on(arrays, log_prior, posterior, row, outcome)

        return cast("Posterior", lax.fori_loop(0, count(observations), step, posterior))

    def add(self, sums: Sums, observations: jax.Array) -> Sums:
        family = self._with_statistics()

        def step(place: jax.Array, before: Sums) -> Sums:
            row, outcome = observations[place, :-2], observations[place, -2]
            added = family.statistics(row, outcome)
            # The error of an addition, exactly (Knuth's two-sum), is added up apart.
            total = before.sums + added
            back = total - before.sums
            lost = (before.sums - (total - back)) + (added - back)
            finite = jnp.all(jnp.isfinite(row)) & jnp.isfinite(outcome) & jnp.all(jnp.isfinite(total))
            failed = (before.failed > 0.0) | ~finite
            after = Sums(total, before.corrections + lost, before.failed)
            kept: Sums = jax.tree.map(lambda old, new: jnp.where(failed, old, new), before, after)
            return kept._replace(failed=failed.astype(jnp.float64))

        return cast("Sums", lax.fori_loop(0, count(observations), step, sums))

    def posterior(self, arrays: tuple[Arrays, Arrays], log_prior: jax.Array, sums: Sums) -> Posterior:
        family = self._with_statistics()
        prepared = family.prepare(sums.sums + sums.corrections)

        def block(cut: Any, whole: Any) -> Any:
            (own, own_prior), (shared, prepared, prior) = cut, whole
            log_likelihood = family.log_likelihood_of({**own, **shared}, prepared)
            log_weight = log_likelihood + (prior if own_prior is None else own_prior)
            lowest = jnp.min(jnp.where(jnp.isneginf(log_weight), jnp.inf, log_weight))
            return log_weight, jnp.max(log_weight), lowest

        own_prior, prior = _cut_or_whole(log_prior)
        log_weight, peaks, lowests = self.blocks.each(block, (arrays[0], own_prior), (arrays[1], prepared, prior))
        peak, lowest = jnp.max(peaks), jnp.min(lowests)
        size = jnp.where(jnp.isfinite(lowest), jnp.maximum(jnp.abs(lowest), jnp.abs(peak)), 0.0)
        slack = self.prior_slack + prepared["rounding"] + EPSILON * size
        failed = (sums.failed > 0.0) | ~((jnp.abs(peak) < jnp.inf) & ~jnp.isnan(slack))
        account = jnp.stack([peak, lowest, slack, failed.astype(jnp.float64)])
        return Posterior(log_weight, account, None)

    def derive(self, log_prior: jax.Array, posterior: Posterior) -> tuple[search.Derived, jax.Array]:
        account = Account(*posterior.account)
        peak = account.peak
        of_blocks = self.blocks.each(lambda cut, peak: jnp.sum(weights(cut, peak)), posterior.log_weight, peak)
        total = self.blocks.total(of_blocks)
        refuted = jnp.isneginf(peak)
        if not isinstance(self.spec, PlausibleBound | RatioBound):
            log_posterior = relative(posterior.log_weight, peak) - jnp.log(total)
            derived = search.Derived(log_posterior, None, None, of_blocks / total)
            return derived, jnp.stack([jnp.log(total), refuted.astype(jnp.float64)])

        members = posterior.members
        if members is None and isinstance(self.spec, PlausibleBound):
            members = self._plausible_set(posterior.log_weight, peak, total, account.slack)

        def block(cut: Any, whole: Any) -> Any:
            (log_weight, members, own_prior), (peak, total, slack, prior) = cut, whole
            mass = weights(log_weight, peak) / total
            belief = jnp.where(mass < NEGLIGIBLE[self.mass_type], 0.0, mass).astype(self.mass_type)
            present = members
            if present is None:
                present = self._ratio_set(log_weight, peak, total, slack, prior if own_prior is None else own_prior)
            of_rows = jnp.any(present.reshape(-1, self.blocks.width), axis=1)
            return belief, None if members is not None else present, of_rows

        own_prior, prior = _cut_or_whole(log_prior)
        cut, whole = (posterior.log_weight, members, own_prior), (peak, total, account.slack, prior)
        belief, present, inhabited = self.blocks.each(block, cut, whole)
        refuted |= bounds.is_refuted(inhabited)
        if posterior.members is None and members is None:
            members = present
        # The posterior's own set is not given back: it would be copied.
        derived = search.Derived(
            belief, None if posterior.members is not None else members, inhabited, of_blocks / total
        )
        return derived, jnp.stack([jnp.log(total), refuted.astype(jnp.float64)])

    def _condition_on(
        self,
        arrays: tuple[Arrays, Arrays],
        log_prior: jax.Array,
        posterior: Posterior,
        row: jax.Array,
        outcome: jax.Array,
    ) -> Posterior:
        before = Account(*posterior.account)
        running = posterior.members is not None

        def block(cut: Any, whole: Any) -> Any:
            (log_weight, own), (shared, reference, row, outcome) = cut, whole
            new = relative(log_weight, reference) + self.family.log_likelihood({**own, **shared}, row, outcome)
            peak = jnp.max(new)
            lowest = jnp.min(jnp.where(jnp.isneginf(new), jnp.inf, new))
            return new, peak, lowest, jnp.sum(weights(new, peak)) if running else None

        log_weight, peaks, lowests, sums = self.blocks.each(
            block, (posterior.log_weight, arrays[0]), (arrays[1], before.peak, row, outcome)
        )
        peak, lowest = jnp.max(peaks), jnp.min(lowests)
        spread = jnp.where(before.lowest < before.peak, before.peak - before.lowest, 0.0)
        size = jnp.where(jnp.isfinite(lowest), jnp.maximum(jnp.abs(lowest), jnp.abs(peak)), 0.0)
        everything = {**arrays[0], **arrays[1]}
        rounding = self.family.log_likelihood_rounding(everything, row, outcome)
        slack = before.slack + rounding + EPSILON * jnp.maximum(spread, size)

        members = posterior.members
        if members is not None:
            shift = jnp.where(jnp.isneginf(peaks), 0.0, jnp.exp(peaks - jnp.where(jnp.isneginf(peak), 0.0, peak)))
            total = self.blocks.total(sums * shift)
            members = bounds.intersect(members, self._set(log_prior, log_weight, peak, total, slack))

        finite = jnp.all(jnp.isfinite(row)) & jnp.isfinite(outcome)
        finite &= (peak < jnp.inf) & ~jnp.isnan(slack)
        failed = (before.failed > 0.0) | ~finite
        account = jnp.stack([peak, lowest, slack, jnp.zeros_like(slack)])
        after = Posterior(log_weight, account, members)
        kept: Posterior = lax.cond(failed, lambda old, new: old, lambda old, new: new, posterior, after)
        return kept._replace(account=kept.account.at[-1].set(failed.astype(jnp.float64)))

    def _set(
        self, log_prior: jax.Array, log_weight: jax.Array, peak: jax.Array, total: jax.Array, slack: jax.Array
    ) -> jax.Array:
        """bool[H]: the hypotheses that the bound leaves in at this moment."""
        if isinstance(self.spec, PlausibleBound):
            return self._plausible_set(log_weight, peak, total, slack)

        def block(cut: Any, whole: Any) -> jax.Array:
            (log_weight, own_prior), (peak, total, slack, prior) = cut, whole
            return self._ratio_set(log_weight, peak, total, slack, prior if own_prior is None else own_prior)

        own_prior, prior = _cut_or_whole(log_prior)
        return self.blocks.each(block, (log_weight, own_prior), (peak, total, slack, prior))

    def _plausible_set(self, log_weight: jax.Array, peak: jax.Array, total: jax.Array, slack: jax.Array) -> jax.Array:
        if not isinstance(self.spec, PlausibleBound):
            raise TypeError(f"a {self.spec.kind} bound has no plausible set")
        log_posterior = self.blocks.everywhere_whole(relative(log_weight, peak) - jnp.log(total))
        return bounds.plausible_set(log_posterior, self.spec.alpha, slack=self._forgiven(slack))

    def _ratio_set(
        self, log_weight: jax.Array, peak: jax.Array, total: jax.Array, slack: jax.Array, log_prior: jax.Array
    ) -> jax.Array:
        """`bounds.ratio_set` for a part of the class, whose total masses are known."""
        if not isinstance(self.spec, RatioBound):
            raise TypeError(f"a {self.spec.kind} bound has no ratio set")
        log_posterior = relative(log_weight, peak) - jnp.log(total)
        correction, delta = jnp.float64(self.prior_correction), jnp.float64(self.spec.delta)
        return log_excess_of_part(log_posterior, log_prior, delta, self._forgiven(slack), correction) >= 0.0

    def _with_statistics(self) -> SufficientStatistics:
        if not isinstance(self.family, SufficientStatistics):
            raise TypeError(f"{self.family.name} has no sufficient statistics")
        return self.family

    def _forgiven(self, slack: jax.Array) -> jax.Array:
        return MIN_SLACK + 2.0 * slack + 2.0 * self.size * EPSILON


def _cut_or_whole(log_prior: jax.Array) -> tuple[jax.Array | None, jax.Array | None]:
    """A prior as what blocks share out among them, or as what all of them see: one number."""
    return (None, log_prior) if log_prior.shape == (1,) else (log_prior, None)


def relative(log_weight: jax.Array, peak: jax.Array) -> jax.Array:
    """float64[...]: log weights below their peak, as they are if every hypothesis is impossible."""
    return log_weight - jnp.where(jnp.isneginf(peak), 0.0, peak)


def weights(log_weight: jax.Array, peak: jax.Array) -> jax.Array:
    """float64[...]: exponentials of log weights below their peak, 0 where negligible."""
    below = relative(log_weight, peak)
    return jnp.where(below < LOG_NEGLIGIBLE, 0.0, jnp.exp(jnp.maximum(below, LOG_NEGLIGIBLE)))


def count(buffer: jax.Array) -> jax.Array:
    """int32[]: how many rows of a buffer are filled."""
    return buffer[0, -1].astype(jnp.int32)


def fill(rows: Any, *columns: Any) -> np.ndarray[Any, np.dtype[np.float64]]:
    """A kernel's buffer: rows, further columns, and in the first line's last place the number of rows."""
    buffer = np.zeros((MAX_BATCH, rows.shape[1] + len(columns) + 1))
    number = len(rows)
    buffer[:number, : rows.shape[1]] = rows
    for offset, column in enumerate(columns):
        buffer[:number, rows.shape[1] + offset] = column
    buffer[0, -1] = number
    return buffer
