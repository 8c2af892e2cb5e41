"""The weak bound (the paper, Proposition 4.3), with delta * P(tau) inside the supremum.

    harm(x, a, truth) <= sup over tau of P(tau | Z) * harm(x, a, tau) / (delta * P(tau))

at all times at once with probability at least 1 - delta: on that event P(truth | Z) >= delta * P(truth),
so the truth's own term is at least its harm. With delta * P(tau) inside, no prior mass of the truth
need be known. It is never tighter than the ratio bound and is kept for comparison.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp

from guardrail.bounds import _arrays, _kernels
from guardrail.bounds.ratio import log_excess

if TYPE_CHECKING:
    from jax.typing import ArrayLike


@_arrays.in_float64
def weak(log_posterior: ArrayLike, log_prior: ArrayLike, harm: ArrayLike, delta: ArrayLike) -> jax.Array:
    """Weak bound on the true harm at all times, with confidence 1 - delta. **It may exceed 1**, even be inf.

    Args:
        log_posterior: float[H], log posterior masses, normalised; -inf for a refuted hypothesis.
        log_prior: float[H], log prior masses, normalised; a mass of 0 makes the bound inf where its harm is above 0.
        harm: float[H, A], harm probabilities.
        delta: probability in (0, 1] with which the bound may fail at some time.

    Returns:
        float64[A], at least 0 and at least the ratio bound; 1 where nothing can be said: for every
        action if an array holds NaN or +inf, the posterior's mass falls short of one, the prior's
        exceeds one or a traced `delta` is outside (0, 1]; for an action whose column holds NaN or a
        number outside [0, 1].

    :raises ValueError: if the shapes do not fit, or `delta` is known and out of range.
    :raises TypeError: if an argument does not hold real numbers.
    """
    posterior, prior = _arrays.vector("log_posterior", log_posterior), _arrays.vector("log_prior", log_prior)
    columns = _arrays.matrix("harm", harm)
    _arrays.same_hypotheses(log_posterior=posterior, log_prior=prior, harm=columns)
    tolerance = _arrays.tolerance(log_posterior, log_prior, delta)
    return _weak(posterior, prior, columns, _arrays.delta_scalar(delta), tolerance.slack, tolerance.mass)


@_kernels.jitted()
def _weak(
    log_posterior: jax.Array,
    log_prior: jax.Array,
    harm: jax.Array,
    delta: jax.Array,
    slack: jax.Array,
    mass_tolerance: jax.Array,
) -> jax.Array:
    columns = harm.astype(jnp.float64)
    excess, usable = log_excess(log_posterior, log_prior, delta, slack, mass_tolerance)
    usable &= _kernels.probabilities_only(columns)
    # A harm of 0 adds nothing, whatever the excess: without this, inf - inf would be NaN.
    terms = jnp.where(columns > 0.0, excess[:, None] + jnp.log(columns), -jnp.inf)
    return jnp.where(usable, jnp.exp(jnp.max(terms, axis=0, initial=-jnp.inf)), 1.0)
