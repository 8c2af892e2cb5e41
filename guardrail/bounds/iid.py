"""The cautious plausible hypothesis for i.i.d. data (the paper, Propositions 3.1 and 3.3).

If the observations are independent and identically distributed under the truth, the class is
countable, the prior mass of the truth is positive and the members are distinct distributions,
then almost surely there is a random finite N such that for every n >= N and every (x, a)

    harm(x, a, truth) <= harm(x, a, cautious),  cautious in argmax over tau of P(tau | Z) * harm(x, a, tau).

N is not known at run time, so the bound is asymptotic: nothing is promised at a given n.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp

from guardrail.bounds import _arrays, _kernels

if TYPE_CHECKING:
    from jax.typing import ArrayLike


@_arrays.in_float64
def iid(log_posterior: ArrayLike, harm: ArrayLike) -> jax.Array:
    """Harm of the hypothesis with the largest posterior times harm (Proposition 3.3): asymptotic.

    Among hypotheses tied for the maximum (up to rounding) the largest harm counts. Where the
    product is 0 for every hypothesis all of them are tied, the refuted ones too.

    Args:
        log_posterior: float[H], log posterior masses up to a constant; -inf for a refuted hypothesis.
        harm: float[H, A], harm probabilities.

    Returns:
        float64[A] in [0, 1]; 1 where nothing can be said: for every action if the posterior holds
        NaN or +inf or no hypothesis above -inf, for an action whose column holds NaN or a number
        outside [0, 1].

    :raises ValueError: if the shapes do not fit.
    :raises TypeError: if an argument does not hold real numbers.
    """
    weights, columns = _arrays.vector("log_posterior", log_posterior), _arrays.matrix("harm", harm)
    _arrays.same_hypotheses(log_posterior=weights, harm=columns)
    return _iid(weights, columns, _arrays.tolerance(log_posterior, harm).slack)


@_kernels.jitted()
def _iid(log_posterior: jax.Array, harm: jax.Array, slack: jax.Array) -> jax.Array:
    weights, columns = log_posterior.astype(jnp.float64), harm.astype(jnp.float64)
    # The log keeps apart products that underflow; the log of a harm of 0 is -inf and never wins alone.
    score = weights[:, None] + jnp.log(columns)
    best = jnp.max(score, axis=0, initial=-jnp.inf)
    tied = score >= best - slack * (1.0 + jnp.abs(best))
    bound = _kernels.largest_harm(tied, columns)
    return jnp.where(jnp.isfinite(_kernels.top(weights)), bound, 1.0)
