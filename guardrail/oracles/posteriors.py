"""What observations leave of an enumerated class: log weights, or sums, and what rounding may have done to them.

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
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from guardrail.oracles.base import MAX_BATCH

EPSILON = float(np.finfo(np.float64).eps)
NEGLIGIBLE = {np.dtype(np.float64): 1e-150, np.dtype(np.float32): 1e-18}
"""Posterior masses below it count as 0 in sums: that can only lower the evidence, which is the sound side,
and no product becomes a denormal number, on which processors are slow."""
LOG_NEGLIGIBLE = math.log(NEGLIGIBLE[np.dtype(np.float64)])


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


def cut_or_whole(log_prior: jax.Array) -> tuple[jax.Array | None, jax.Array | None]:
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
