"""The prior-posterior ratio set (Waudby-Smith and Ramdas 2020; the martingale of the paper's Lemma 4.1).

    C(t) = { tau : P(tau | Z) >= delta * P(tau) }

Under the truth, P(truth) / P(truth | Z) is a non-negative supermartingale that starts at 1, so by
Ville's inequality the truth is in C(t) for all t at once with probability at least 1 - delta,
whatever the data and however the actions were chosen. The prior mass of the truth need not be known.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp

from guardrail.bounds import _arrays, _kernels

if TYPE_CHECKING:
    from jax.typing import ArrayLike


@_arrays.in_float64
def ratio_set(
    log_posterior: ArrayLike, log_prior: ArrayLike, delta: ArrayLike, slack: ArrayLike | None = None
) -> jax.Array:
    """Hypotheses whose posterior is at least delta times their prior.

    A hypothesis of prior mass 0 is never left out: nothing is promised about it.

    Args:
        log_posterior: float[H], log posterior masses, normalised; -inf for a refuted hypothesis.
        log_prior: float[H], log prior masses, normalised.
        delta: probability in (0, 1] with which the truth may be left out at some time.
        slack: a hypothesis is a member if it is within `slack * (1 + |log_prior| + |log delta|)`
            nats of the cut; by default what rounding in the inputs' number format may cost.

    Returns:
        bool[H]; never empty for a posterior and a prior that are normalised. All True, so that
        nothing is left out, if an array holds NaN or +inf, if the posterior's mass falls short
        of one or the prior's exceeds one, or if a traced `delta` is outside (0, 1].

    :raises ValueError: if the shapes do not fit, or `delta` or `slack` is known and out of range.
    :raises TypeError: if an argument does not hold real numbers.
    """
    posterior, prior, tolerance = _prepare(log_posterior, log_prior, delta)
    return _ratio_set(
        posterior, prior, _arrays.delta_scalar(delta), _arrays.slack_scalar(slack, tolerance), tolerance.mass
    )


@_arrays.in_float64
def ratio(log_posterior: ArrayLike, log_prior: ArrayLike, harm: ArrayLike, delta: ArrayLike) -> jax.Array:
    """Largest harm over the ratio set: a bound on the true harm at all times, with confidence 1 - delta.

    Args:
        log_posterior: float[H], log posterior masses, normalised; -inf for a refuted hypothesis.
        log_prior: float[H], log prior masses, normalised.
        harm: float[H, A], harm probabilities.
        delta: probability in (0, 1] with which the bound may fail at some time.

    Returns:
        float64[A] in [0, 1]; 1 where nothing can be said: for every action in the cases in which
        `ratio_set` leaves nothing out, for an action whose column holds NaN or a number outside [0, 1].

    :raises ValueError: if the shapes do not fit, or `delta` is known and out of range.
    :raises TypeError: if an argument does not hold real numbers.
    """
    posterior, prior, tolerance = _prepare(log_posterior, log_prior, delta)
    columns = _arrays.matrix("harm", harm)
    _arrays.same_hypotheses(log_posterior=posterior, harm=columns)
    return _ratio(posterior, prior, columns, _arrays.delta_scalar(delta), tolerance.slack, tolerance.mass)


def log_excess(
    log_posterior: jax.Array, log_prior: jax.Array, delta: jax.Array, slack: jax.Array, mass_tolerance: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """log(P(tau | Z) / (delta * P(tau))) plus the slack, float64[H], and bool[]: whether it means anything.

    A member of the ratio set has an excess of at least 0.
    """
    posterior, prior = log_posterior.astype(jnp.float64), log_prior.astype(jnp.float64)
    level = jnp.asarray(delta, jnp.float64)
    posterior_mass, prior_mass = _kernels.log_mass(posterior), _kernels.log_mass(prior)
    usable = (posterior_mass >= -mass_tolerance) & (prior_mass <= mass_tolerance)
    usable &= (level > 0.0) & (level <= 1.0) & (slack >= 0.0) & jnp.isfinite(slack)
    # Both corrections raise the excess: a mass off by its tolerance may not leave anything out.
    correction = jnp.maximum(prior_mass, 0.0) - jnp.minimum(posterior_mass, 0.0)
    return log_excess_of_part(posterior, prior, level, slack, correction), usable


def log_excess_of_part(
    log_posterior: jax.Array, log_prior: jax.Array, delta: jax.Array, slack: jax.Array, correction: jax.Array
) -> jax.Array:
    """log(P(tau | Z) / (delta * P(tau))) plus the slack, for any part of a class; members have at least 0.

    Args:
        log_posterior: float64[P], log posterior masses, normalised over the whole class.
        log_prior: float64[P], log prior masses, normalised over the whole class.
        delta: float64[], in (0, 1].
        slack: float64[], see `ratio_set`.
        correction: float64[], at least what the total masses of the class are off by, in nats.
    """
    log_delta = jnp.log(delta)
    forgiven = slack * (1.0 + jnp.abs(log_prior) + jnp.abs(log_delta))
    excess = log_posterior - log_prior + correction - log_delta + forgiven
    return jnp.where(jnp.isneginf(log_prior), jnp.inf, excess)


@_kernels.jitted()
def _ratio_set(
    log_posterior: jax.Array, log_prior: jax.Array, delta: jax.Array, slack: jax.Array, mass_tolerance: jax.Array
) -> jax.Array:
    excess, usable = log_excess(log_posterior, log_prior, delta, slack, mass_tolerance)
    return (excess >= 0.0) | ~usable


@_kernels.jitted()
def _ratio(
    log_posterior: jax.Array,
    log_prior: jax.Array,
    harm: jax.Array,
    delta: jax.Array,
    slack: jax.Array,
    mass_tolerance: jax.Array,
) -> jax.Array:
    excess, usable = log_excess(log_posterior, log_prior, delta, slack, mass_tolerance)
    bound = _kernels.largest_harm(excess >= 0.0, harm.astype(jnp.float64))
    return jnp.where(usable, bound, 1.0)


def _prepare(
    log_posterior: ArrayLike, log_prior: ArrayLike, delta: ArrayLike
) -> tuple[jax.Array, jax.Array, _arrays.Tolerance]:
    posterior, prior = _arrays.vector("log_posterior", log_posterior), _arrays.vector("log_prior", log_prior)
    _arrays.same_hypotheses(log_posterior=posterior, log_prior=prior)
    return posterior, prior, _arrays.tolerance(log_posterior, log_prior, delta)
