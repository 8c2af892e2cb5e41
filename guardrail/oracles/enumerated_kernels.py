"""The compiled programs of the enumerated oracle: condition, derive, bound.

Each oracle has one program for each, whatever the number of inputs: inputs come in a buffer of fixed size
and a loop runs over the first n of them. So a result cannot depend on how inputs were batched,
and nothing is compiled again. Arrays over hypotheses are viewed as [H / width, width], row by row.
Log weights are computed element by element, with maxima and minima, so they are the same bit for bit on
any number of threads; sums (the posterior's mass, the predictive harm) may differ in the last place
between machines with different numbers of cores.

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
from guardrail.oracles.base import MAX_BATCH
from guardrail.policy.schema import BoundSpec, IidBound, PlausibleBound, RatioBound

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    from guardrail.hypotheses.base import Arrays, EnumeratedFamily

EPSILON = float(np.finfo(np.float64).eps)
MIN_SLACK = 1e-12
"""Slack of membership before any observation: what computing a prior and a cut costs."""
NEGLIGIBLE = {np.dtype(np.float64): 1e-150, np.dtype(np.float32): 1e-18}
"""Posterior masses below it count as 0 in sums: that can only lower the evidence, which is the sound side,
and no product becomes a denormal number, on which processors are slow."""
SINGLE_PRECISION_FROM = 2**16
"""From this class size on the predictive harm, where it is only shown beside a bound, is computed in float32."""

COLUMNS = 5
"""Of a packed result: the bound, predictive harm, harm and index of the cautious hypothesis, 1 if they are usable."""


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


class Derived(NamedTuple):
    """What every check of one posterior shares; a pure function of it.

    Attributes:
        belief: float64[H] or float32[H], posterior masses, if harm is maximised over a set; else float64[H], log
            posterior masses.
        members: bool[H], that set; None if the bound has none, or if the posterior holds it.
        log_total: float64[2]: log of the sum of exp(log_weight - peak), and 1 if no hypothesis is left, else 0.
    """

    belief: jax.Array
    members: jax.Array | None
    log_total: jax.Array


class Kernels(NamedTuple):
    """The programs of one oracle; call them under `jax.enable_x64(True)`.

    Attributes:
        condition: (arrays, log_prior, posterior, observations) -> posterior.
        derive: (log_prior, posterior) -> derived.
        bound: (arrays, belief, members, inputs) -> float64[MAX_BATCH, COLUMNS].

    `log_prior` is float64[H], or float64[1] if it is constant. `observations` is float64[MAX_BATCH, F + 2]: row,
    outcome, and in the first line's last place their number; `inputs` is float64[MAX_BATCH, F + 1]: row, and likewise.
    """

    condition: Callable[..., Posterior]
    derive: Callable[..., Derived]
    bound: Callable[..., jax.Array]


def kernels(family: EnumeratedFamily, bound: BoundSpec) -> Kernels:
    """The programs for a family under a bound, compiled at their first call and shared with equal families."""
    return _compile(_Key((type(family), family.trace_key, family.size, family.width, bound), family, bound))


@dataclass(frozen=True)
class _Key:
    identity: Hashable
    family: EnumeratedFamily = field(compare=False)
    bound: BoundSpec = field(compare=False)


@lru_cache(maxsize=64)
def _compile(key: _Key) -> Kernels:
    programs = _Programs(key.family, key.bound)
    return Kernels(jax.jit(programs.condition), jax.jit(programs.derive), jax.jit(programs.bound))


class _Programs:
    """The functions that are traced, for one family and bound."""

    def __init__(self, family: EnumeratedFamily, spec: BoundSpec) -> None:
        self.family, self.spec = family, spec
        self.size, self.shape = family.size, (family.size // family.width, family.width)
        self.mass_type = np.dtype(np.float32 if self.size >= SINGLE_PRECISION_FROM else np.float64)

    def condition(
        self, arrays: Arrays, log_prior: jax.Array, posterior: Posterior, observations: jax.Array
    ) -> Posterior:
        def step(place: jax.Array, posterior: Posterior) -> Posterior:
            row, outcome = observations[place, :-2], observations[place, -2]
            return self._condition_on(arrays, log_prior, posterior, row, outcome)

        return cast("Posterior", lax.fori_loop(0, _count(observations), step, posterior))

    def derive(self, log_prior: jax.Array, posterior: Posterior) -> Derived:
        peak = Account(*posterior.account).peak
        relative, weight, total = self._weights(posterior.log_weight, peak)
        log_posterior, refuted = relative - jnp.log(total), jnp.isneginf(peak)
        if not isinstance(self.spec, PlausibleBound | RatioBound):
            return Derived(log_posterior, None, jnp.stack([jnp.log(total), refuted.astype(jnp.float64)]))

        mass = weight / total
        belief = jnp.where(mass < NEGLIGIBLE[self.mass_type], 0.0, mass).astype(self.mass_type)
        present = posterior.members
        if present is None:
            present = self._set(log_prior, log_posterior, Account(*posterior.account).slack)
        refuted |= bounds.is_refuted(present)
        members = present if posterior.members is None else None
        return Derived(belief, members, jnp.stack([jnp.log(total), refuted.astype(jnp.float64)]))

    def bound(self, arrays: Arrays, belief: jax.Array, members: jax.Array | None, inputs: jax.Array) -> jax.Array:
        def step(place: jax.Array, results: jax.Array) -> jax.Array:
            row = inputs[place, :-1]
            numbers, index, found = self._bound_of(belief, members, self.family.harm_score(arrays, row))
            usable = jnp.all((numbers >= 0.0) & (numbers <= 1.0)) & found & jnp.all(jnp.isfinite(row))
            place_and_flag = jnp.stack([index.astype(jnp.float64), usable.astype(jnp.float64)])
            result = jnp.concatenate([numbers, place_and_flag])
            return cast("jax.Array", lax.dynamic_update_index_in_dim(results, result, place, 0))

        results = jnp.zeros((MAX_BATCH, COLUMNS), jnp.float64)
        return cast("jax.Array", lax.fori_loop(0, _count(inputs), step, results))

    def _condition_on(
        self, arrays: Arrays, log_prior: jax.Array, posterior: Posterior, row: jax.Array, outcome: jax.Array
    ) -> Posterior:
        before = Account(*posterior.account)
        relative = posterior.log_weight - jnp.where(jnp.isneginf(before.peak), 0.0, before.peak)
        log_weight = relative + self.family.log_likelihood(arrays, row, outcome)
        peak = jnp.max(log_weight)
        lowest = jnp.min(jnp.where(jnp.isneginf(log_weight), jnp.inf, log_weight))
        spread = jnp.where(before.lowest < before.peak, before.peak - before.lowest, 0.0)
        size = jnp.where(jnp.isfinite(lowest), jnp.maximum(jnp.abs(lowest), jnp.abs(peak)), 0.0)
        rounding = self.family.log_likelihood_rounding(arrays, row, outcome) + EPSILON * jnp.maximum(spread, size)
        slack = before.slack + rounding

        members = posterior.members
        if members is not None:
            below_peak, _, total = self._weights(log_weight, peak)
            members = bounds.intersect(members, self._set(log_prior, below_peak - jnp.log(total), slack))

        finite = jnp.all(jnp.isfinite(row)) & jnp.isfinite(outcome)
        finite &= (peak < jnp.inf) & ~jnp.isnan(slack)
        failed = (before.failed > 0.0) | ~finite
        account = jnp.stack([peak, lowest, slack, jnp.zeros_like(slack)])
        after = Posterior(log_weight, account, members)
        kept: Posterior = jax.tree.map(lambda old, new: jnp.where(failed, old, new), posterior, after)
        return kept._replace(account=kept.account.at[-1].set(failed.astype(jnp.float64)))

    def _bound_of(
        self, belief: jax.Array, members: jax.Array | None, score: jax.Array
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Value, predictive harm and cautious harm, float64[3]; the cautious index; whether there is such a one."""
        if members is not None:
            # Harm does not decrease with the score, so the largest harm over the set is that of the largest
            # score: `bounds.set_bound`, which defines the bound, without the harm of every hypothesis.
            best, index = self._largest(score, members)
            value = self.family.harm_from_score(best)
            return jnp.stack([value, self._mean_harm(belief, score), value]), index, best > -jnp.inf

        harms = self.family.harm_from_score(score)
        predictive = bounds.predictive(belief, harms[:, None])[0]
        if isinstance(self.spec, IidBound):
            value = bounds.iid(belief, harms[:, None])[0]
            # Of the hypotheses with that harm the most probable one has the largest product.
            best, index = self._largest(belief, harms == value)
            return jnp.stack([value, predictive, value]), index, best > -jnp.inf
        best, index = self._largest(belief, jnp.ones(self.size, jnp.bool_))
        return jnp.stack([predictive, predictive, harms[index]]), index, best > -jnp.inf

    def _mean_harm(self, mass: jax.Array, score: jax.Array) -> jax.Array:
        """The posterior mean of harm, at most 1; NaN if any hypothesis's harm is NaN."""
        harm = self.family.harm_from_score(score.reshape(self.shape).astype(self.mass_type))
        of_row = jnp.sum(mass.reshape(self.shape) * harm, axis=1)
        return jnp.minimum(jnp.sum(of_row.astype(jnp.float64)), 1.0)

    def _largest(self, values: jax.Array, members: jax.Array) -> tuple[jax.Array, jax.Array]:
        """The largest of float64[H] over the members and the smallest index that attains it; -inf without members."""
        masked = jnp.where(members, values, -jnp.inf).reshape(self.shape)
        of_row = jnp.max(masked, axis=1)
        row = jnp.argmax(of_row)
        column = jnp.argmax(lax.dynamic_index_in_dim(masked, row, keepdims=False))
        return of_row[row], row * self.shape[1] + column

    def _weights(self, log_weight: jax.Array, peak: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        """float64[H], log weights below their peak; their exponentials, 0 where negligible; and their sum."""
        relative = log_weight - jnp.where(jnp.isneginf(peak), 0.0, peak)
        negligible = math.log(NEGLIGIBLE[np.dtype(np.float64)])
        weight = jnp.where(relative < negligible, 0.0, jnp.exp(jnp.maximum(relative, negligible)))
        return relative, weight, jnp.sum(weight)

    def _set(self, log_prior: jax.Array, log_posterior: jax.Array, slack: jax.Array) -> jax.Array:
        """bool[H]: the hypotheses that the bound leaves in at this moment."""
        forgiven = MIN_SLACK + 2.0 * slack + 2.0 * self.size * EPSILON
        match self.spec:
            case RatioBound():
                prior = jnp.broadcast_to(log_prior, (self.size,))
                return bounds.ratio_set(log_posterior, prior, self.spec.delta, slack=forgiven)
            case PlausibleBound():
                return bounds.plausible_set(log_posterior, self.spec.alpha, slack=forgiven)
            case _:
                raise TypeError(f"a {self.spec.kind} bound has no set")


def _count(buffer: jax.Array) -> jax.Array:
    return buffer[0, -1].astype(jnp.int32)


def fill(rows: Any, *columns: Any) -> np.ndarray[Any, np.dtype[np.float64]]:
    """A kernel's buffer: rows, further columns, and in the first line's last place the number of rows."""
    buffer = np.zeros((MAX_BATCH, rows.shape[1] + len(columns) + 1))
    count = len(rows)
    buffer[:count, : rows.shape[1]] = rows
    for offset, column in enumerate(columns):
        buffer[:count, rows.shape[1] + offset] = column
    buffer[0, -1] = count
    return buffer
