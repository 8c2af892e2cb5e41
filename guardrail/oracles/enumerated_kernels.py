"""The compiled programs of the enumerated oracle.

Each oracle has one program for each, whatever the number of inputs: inputs come in a buffer of fixed size
and a loop runs over the first n of them. So a result cannot depend on how inputs were batched,
and nothing is compiled again. Arrays over hypotheses are worked through block by block (see `blocks`).
Sums (the posterior's mass, the predictive harm) may differ in the last place between machines with
different processors.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from guardrail import bounds
from guardrail.oracles.conditioning import Conditioning
from guardrail.oracles.membership import Membership
from guardrail.oracles.posteriors import NEGLIGIBLE, Account, Posterior, Sums, relative, weights
from guardrail.oracles.search import Derived, Progress, Search
from guardrail.policy.schema import BoundSpec, PlausibleBound, RatioBound

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    from guardrail.hypotheses.base import EnumeratedFamily
    from guardrail.oracles.blocks import Blocks

SINGLE_PRECISION_FROM = 2**16
"""From this class size on the predictive harm, where it is only shown beside a bound, is computed in float32."""


class Kernels(NamedTuple):
    """The programs of one oracle; call them under `jax.enable_x64(True)`.

    Attributes:
        add: (sums, observations) -> sums.
        posterior: (arrays, log_prior, sums) -> posterior; this and `add` for families with sufficient statistics.
        condition: (arrays, log_prior, posterior, observations) -> posterior.
        derive: (log_prior, posterior) -> (derived, float64[2]: log of the sum of exp(log_weight - peak), and 1 if no
            hypothesis is left, else 0).
        finish: (arrays, derived, inputs) -> float64[MAX_BATCH, `search.COLUMNS`].
        start: () -> progress.
        advance: (arrays, derived, inputs, progress, budget) -> progress; see `search.Search` for these three.

    `arrays` are the family's, `(cut, whole)`. `log_prior` is float64[H], or float64[1] if it is constant.
    `observations` is float64[MAX_BATCH, F + 2]: row, outcome, and in the first line's last place their number;
    `inputs` is float64[MAX_BATCH, F + 1]: row, and likewise.
    """

    add: Callable[..., Sums]
    posterior: Callable[..., Posterior]
    condition: Callable[..., Posterior]
    derive: Callable[..., tuple[Derived, jax.Array]]
    finish: Callable[..., jax.Array]
    start: Callable[[], Progress]
    advance: Callable[..., Progress]


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
    membership = Membership(key.bound, key.blocks, key.log_prior_mass)
    conditioning = Conditioning(key.family, membership, key.blocks, key.prior_slack)
    searching = Search(key.family, key.bound, key.blocks)
    return Kernels(
        jax.jit(conditioning.add),
        jax.jit(conditioning.posterior),
        jax.jit(conditioning.condition),
        jax.jit(_Derivation(key.bound, membership, key.blocks).derive),
        jax.jit(searching.finish),
        # Progress lies the same way before and after, so that going on compiles nothing anew.
        jax.jit(searching.start, out_shardings=key.blocks.everywhere),
        jax.jit(searching.advance, out_shardings=key.blocks.everywhere),
    )


class _Derivation:
    """What all checks of a posterior share."""

    def __init__(self, spec: BoundSpec, membership: Membership, blocks: Blocks) -> None:
        self.spec, self.membership, self.blocks = spec, membership, blocks
        self.mass_type = np.dtype(np.float32 if blocks.size >= SINGLE_PRECISION_FROM else np.float64)

    def derive(self, log_prior: jax.Array, posterior: Posterior) -> tuple[Derived, jax.Array]:
        account = Account(*posterior.account)
        peak = account.peak
        refuted = jnp.isneginf(peak)
        over_set = isinstance(self.spec, PlausibleBound | RatioBound)

        def mass_of_block(log_weight: Any, peak: Any) -> Any:
            mass = weights(log_weight, peak)
            belief = jnp.where(mass < NEGLIGIBLE[self.mass_type], 0.0, mass).astype(self.mass_type)
            return jnp.sum(mass), belief if over_set else None

        of_blocks, belief = self.blocks.each(mass_of_block, posterior.log_weight, peak)
        total = self.blocks.total(of_blocks)
        if not over_set:
            log_posterior = relative(posterior.log_weight, peak) - jnp.log(total)
            derived = Derived(log_posterior, None, None, of_blocks / total, jnp.ones(()))
            return derived, jnp.stack([jnp.log(total), refuted.astype(jnp.float64)])

        members = posterior.members
        if members is None:
            members = self.membership.of(log_prior, posterior.log_weight, peak, total, account.slack)
        inhabited = self.blocks.each(
            lambda members, _: jnp.any(members.reshape(-1, self.blocks.width), axis=1), members, None
        )
        refuted |= bounds.is_refuted(inhabited)
        # The posterior's own set is not given back: it would be copied.
        derived = Derived(
            belief, None if posterior.members is not None else members, inhabited, of_blocks / total, total
        )
        return derived, jnp.stack([jnp.log(total), refuted.astype(jnp.float64)])
