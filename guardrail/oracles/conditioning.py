"""From observations to log weights, one after the other or through their sums; traced functions.

Log weights are computed element by element, with maxima and minima, so they are the same bit for bit on
any number of threads and devices.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import jax
import jax.numpy as jnp
from jax import lax

from guardrail import bounds
from guardrail.hypotheses.base import SufficientStatistics
from guardrail.oracles.posteriors import (
    EPSILON,
    Account,
    Posterior,
    Sums,
    count,
    cut_or_whole,
    relative,
    weights,
)

if TYPE_CHECKING:
    from guardrail.hypotheses.base import Arrays, EnumeratedFamily
    from guardrail.oracles.blocks import Blocks
    from guardrail.oracles.membership import Membership


class Conditioning:
    """How a family's observations change a posterior.

    Args:
        family: the hypothesis class.
        membership: the bound's sets, for a running intersection.
        blocks: how the class is cut.
        prior_slack: most by which rounding has moved a log prior mass, in nats.
    """

    def __init__(self, family: EnumeratedFamily, membership: Membership, blocks: Blocks, prior_slack: float) -> None:
        self.family, self.membership, self.blocks = family, membership, blocks
        self.prior_slack = prior_slack

    def condition(
        self, arrays: tuple[Arrays, Arrays], log_prior: jax.Array, posterior: Posterior, observations: jax.Array
    ) -> Posterior:
        """Condition on observations one after the other; see `enumerated_kernels.Kernels`."""

        def step(place: jax.Array, posterior: Posterior) -> Posterior:
            row, outcome = observations[place, :-2], observations[place, -2]
            return self._condition_on(arrays, log_prior, posterior, row, outcome)

        return cast("Posterior", lax.fori_loop(0, count(observations), step, posterior))

    def add(self, sums: Sums, observations: jax.Array) -> Sums:
        """Add observations to the sums; see `enumerated_kernels.Kernels`."""
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
        """The posterior after the observations that were added up; see `enumerated_kernels.Kernels`."""
        family = self._with_statistics()
        prepared = family.prepare(sums.sums + sums.corrections)

        def block(cut: Any, whole: Any) -> Any:
            (own, own_prior), (shared, prepared, prior) = cut, whole
            log_likelihood = family.log_likelihood_of({**own, **shared}, prepared)
            log_weight = log_likelihood + (prior if own_prior is None else own_prior)
            lowest = jnp.min(jnp.where(jnp.isneginf(log_weight), jnp.inf, log_weight))
            return log_weight, jnp.max(log_weight), lowest

        own_prior, prior = cut_or_whole(log_prior)
        log_weight, peaks, lowests = self.blocks.each(block, (arrays[0], own_prior), (arrays[1], prepared, prior))
        peak, lowest = jnp.max(peaks), jnp.min(lowests)
        size = jnp.where(jnp.isfinite(lowest), jnp.maximum(jnp.abs(lowest), jnp.abs(peak)), 0.0)
        slack = self.prior_slack + prepared["rounding"] + EPSILON * size
        failed = (sums.failed > 0.0) | ~((jnp.abs(peak) < jnp.inf) & ~jnp.isnan(slack))
        account = jnp.stack([peak, lowest, slack, failed.astype(jnp.float64)])
        return Posterior(log_weight, account, None)

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
            members = bounds.intersect(members, self.membership.of(log_prior, log_weight, peak, total, slack))

        finite = jnp.all(jnp.isfinite(row)) & jnp.isfinite(outcome)
        finite &= (peak < jnp.inf) & ~jnp.isnan(slack)
        failed = (before.failed > 0.0) | ~finite
        account = jnp.stack([peak, lowest, slack, jnp.zeros_like(slack)])
        after = Posterior(log_weight, account, members)
        kept: Posterior = lax.cond(failed, lambda old, new: old, lambda old, new: new, posterior, after)
        return kept._replace(account=kept.account.at[-1].set(failed.astype(jnp.float64)))

    def _with_statistics(self) -> SufficientStatistics:
        if not isinstance(self.family, SufficientStatistics):
            raise TypeError(f"{self.family.name} has no sufficient statistics")
        return self.family
