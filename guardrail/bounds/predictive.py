"""Posterior predictive harm (the paper, equation for the Bayesian predictive; no proposition).

    predictive(x, a) = sum over tau of P(tau | Z) * harm(x, a, tau)

The mean over what is believed, not a bound on what is true: it can lie far below the true harm.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp

from guardrail.bounds import _arrays, _kernels

if TYPE_CHECKING:
    from jax.typing import ArrayLike


@_arrays.in_float64
def predictive(log_posterior: ArrayLike, harm: ArrayLike) -> jax.Array:
    """Posterior predictive harm. It promises nothing; it is shown beside a bound.

    Args:
        log_posterior: float[H], log posterior masses, normalised; -inf for a refuted hypothesis.
        harm: float[H, A], harm probabilities.

    Returns:
        float64[A] in [0, 1]; 1 where nothing can be said: for every action if the posterior holds
        NaN or +inf or its mass falls short of one, for an action whose column holds NaN or a
        number outside [0, 1].

    :raises ValueError: if the shapes do not fit.
    :raises TypeError: if an argument does not hold real numbers.
    """
    weights, columns = _arrays.vector("log_posterior", log_posterior), _arrays.matrix("harm", harm)
    _arrays.same_hypotheses(log_posterior=weights, harm=columns)
    return _predictive(weights, columns, _arrays.tolerance(log_posterior).mass)


@_kernels.jitted()
def _predictive(log_posterior: jax.Array, harm: jax.Array, mass_tolerance: jax.Array) -> jax.Array:
    weights, columns = log_posterior.astype(jnp.float64), harm.astype(jnp.float64)
    usable = (_kernels.log_mass(weights) >= -mass_tolerance) & _kernels.probabilities_only(columns)
    # Not a matrix product: JAX lowers that to float32 in a caller's jit without 64-bit mode.
    mean = jnp.sum(jnp.exp(weights)[:, None] * columns, axis=0)
    return jnp.where(usable & (mean <= 1.0), mean, 1.0)
