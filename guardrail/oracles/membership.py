"""Which hypotheses a bound leaves in, from log weights: `guardrail.bounds` for classes that come in blocks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import jax.numpy as jnp

from guardrail import bounds
from guardrail.bounds.ratio import log_excess_of_part
from guardrail.oracles.posteriors import EPSILON, cut_or_whole, relative
from guardrail.policy.schema import BoundSpec, PlausibleBound, RatioBound

if TYPE_CHECKING:
    import jax

    from guardrail.oracles.blocks import Blocks

MIN_SLACK = 1e-12
"""Slack of membership before any observation: what computing a prior and a cut costs."""


class Membership:
    """The set of a bound; its functions are traced.

    Args:
        spec: the bound.
        blocks: how the class is cut.
        log_prior_mass: log of the prior's total mass, which rounding may have left off 0.
    """

    def __init__(self, spec: BoundSpec, blocks: Blocks, log_prior_mass: float) -> None:
        self.spec, self.blocks = spec, blocks
        self.prior_correction = max(log_prior_mass, 0.0)

    def of(
        self, log_prior: jax.Array, log_weight: jax.Array, peak: jax.Array, total: jax.Array, slack: jax.Array
    ) -> jax.Array:
        """bool[H]: the hypotheses that the bound leaves in at this moment."""
        if isinstance(self.spec, PlausibleBound):
            return self._plausible_set(log_weight, peak, total, slack)

        def block(cut: Any, whole: Any) -> jax.Array:
            (log_weight, own_prior), (peak, total, slack, prior) = cut, whole
            return self._ratio_set(log_weight, peak, total, slack, prior if own_prior is None else own_prior)

        own_prior, prior = cut_or_whole(log_prior)
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
        excess = log_excess_of_part(log_posterior, log_prior, delta, self._forgiven(slack), correction)
        # Where numbers were too large to compute with, a weight of 0 need not be one: nothing is left out.
        return (excess >= 0.0) | ~jnp.isfinite(slack)

    def _forgiven(self, slack: jax.Array) -> jax.Array:
        return MIN_SLACK + 2.0 * slack + 2.0 * self.blocks.size * EPSILON
