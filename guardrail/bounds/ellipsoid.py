"""The prior-posterior ratio set of Gaussian linear regression: an ellipsoid.

Source: Waudby-Smith and Ramdas 2020, prior-posterior ratio, for y ~ Normal(w . f, sigma^2) and
w ~ Normal(m0, s^2 I). With A = F'F / sigma^2, b = F'y / sigma^2 the set at level delta is

    w'A w - 2 w'b <= log det(I + s^2 A) - 2 log delta + |m0|^2 / s^2 - mu'(A + I / s^2) mu

with mu the posterior mean: the prior's curvature cancels and the quadratic form is A alone, not
the posterior precision. Written around any point c (c = mu gives equality, every other point a
superset), with g = A c - b and v = w - c, it is

    v'A v + 2 v'g <= R,     R = log det(I + s^2 A) - 2 log delta + |c - m0|^2 / s^2,

where all large terms have cancelled on paper.

Rounding. With D_j = sqrt(A_jj), every error of A (summation, Cholesky factor) is at most
eps D_i D_j in element (i, j), and every error of g at most eps D_j T with
T = |y| / sigma + sum_j D_j |c_j|, where eps = (d + 16) 2^-52. In coordinates z_j = D_j v_j the
matrix has a unit diagonal, so these are absolute errors eps and eps T; they are carried through
every result below, always to the side that makes the set larger.

JAX functions of arrays; call them under `jax.enable_x64(True)`.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

SUM_ROUNDING = 2.0**-49
"""Error of a compensated sum of products after a few rescalings, per sqrt(A_ii A_jj)."""

MAX_LOOSENESS = 1.0 / 16.0
"""Largest relative error of the quadratic form at which the factorisation is still used."""

SMALLEST_CURVATURE = 1e-200
"""Smallest A_jj that is trusted: products of features may underflow below it."""


def factor_rounding(dimension: int) -> float:
    """Eps of the module's docstring: relative error of a factorisation or a matrix-vector product."""
    return (dimension + 16) * 2.0**-52


class Posterior(NamedTuple):
    """The Gaussian posterior of the weights, ready for many checks.

    Attributes:
        mean: float64[d].
        gram: float64[d, d], A.
        gradient: float64[d], g = A mean - b.
        scale: float64[d], D_j = sqrt(A_jj).
        touched: bool[d], True where A_jj is not exactly 0 on paper.
        resolved: bool[], False if a touched coordinate's A_jj is lost to underflow.
        data_norm: float64[], T.
        root_precision: float64[d, d], X with f'(A + I / s^2)^-1 f = |X f|^2.
        log_det: float64[], an upper bound on log det(I + s^2 A).
        shift: float64[], |mean - m0|^2 / s^2.
    """

    mean: jax.Array
    gram: jax.Array
    gradient: jax.Array
    scale: jax.Array
    touched: jax.Array
    resolved: jax.Array
    data_norm: jax.Array
    root_precision: jax.Array
    log_det: jax.Array
    shift: jax.Array


class Ellipsoid(NamedTuple):
    """The ratio set without a box, as a ball in coordinates x = L'z where L L' is the scaled A.

    Attributes:
        level: float64[], R, rounded up.
        inverse_factor: float64[d, d], L^-1 (meaningless unless `bounded`).
        offset: float64[d], L^-1 D^-1 g: minus the ball's centre.
        offset_error: float64[], bound on the norm of the offset's error.
        looseness: float64[], relative error tau of the quadratic form.
        spread: float64[], Frobenius norm of L^-1.
        bounded: bool[], False if the data does not determine the weights well enough.
    """

    level: jax.Array
    inverse_factor: jax.Array
    offset: jax.Array
    offset_error: jax.Array
    looseness: jax.Array
    spread: jax.Array
    bounded: jax.Array


class Range(NamedTuple):
    """Where f . w may lie.

    Attributes:
        lower: float64[], at most the smallest value.
        upper: float64[], at least the largest value.
        at_lower: float64[d], the v = w - mean that attains `lower`, up to rounding; NaN if unbounded.
        at_upper: float64[d], the same for `upper`.
    """

    lower: jax.Array
    upper: jax.Array
    at_lower: jax.Array
    at_upper: jax.Array


def _inverse_factor(matrix: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The Cholesky factor of a positive definite matrix and its inverse; NaN if there is none."""
    factor = jax.lax.linalg.cholesky(matrix, symmetrize_input=False)
    identity = jnp.eye(matrix.shape[0], dtype=matrix.dtype)
    inverse = jax.lax.linalg.triangular_solve(factor, identity, left_side=True, lower=True)
    return factor, jnp.tril(inverse)


def _unit_diagonal(matrix: jax.Array, scale: jax.Array) -> jax.Array:
    """D^-1 M D^-1 with an exact unit diagonal; rows and columns of scale 0 become those of the identity."""
    safe = jnp.where(scale > 0, scale, 1.0)
    scaled = matrix / safe[:, None] / safe[None, :]
    return jnp.where(jnp.eye(matrix.shape[0], dtype=bool), 1.0, scaled)


def posterior(
    gram: jax.Array,
    cross: jax.Array,
    square: jax.Array,
    touched: jax.Array,
    noise_sd: float | jax.Array,
    prior_mean: float | jax.Array,
    prior_sd: float | jax.Array,
) -> Posterior:
    """The posterior from the sufficient statistics.

    Args:
        gram: float64[d, d], sum of f f', correct to SUM_ROUNDING.
        cross: float64[d], sum of f y, correct likewise.
        square: float64[], sum of y^2.
        touched: bool[d], True where some observation's feature was not exactly 0.
        noise_sd: sigma > 0, in the outcome's unit.
        prior_mean: mean of every weight.
        prior_sd: s > 0, standard deviation of every weight.
    """
    dimension = cross.shape[0]
    a = gram / noise_sd / noise_sd
    b = cross / noise_sd / noise_sd
    diagonal = jnp.diagonal(a)
    scale = jnp.sqrt(diagonal)
    inflated = jnp.eye(dimension, dtype=a.dtype) + (prior_sd * prior_sd) * a
    inflated_scale = jnp.sqrt(jnp.diagonal(inflated))
    # The ridge exceeds the norm of all rounding errors, so the factor's matrix is at least the exact one: the
    # factorisation cannot fail and log det errs upward. The mean need not be exact (see the module's docstring).
    ridge = 2 * factor_rounding(dimension) * dimension
    factor, inverse = _inverse_factor(
        _unit_diagonal(inflated, inflated_scale) + ridge * jnp.eye(dimension, dtype=a.dtype)
    )
    root_precision = prior_sd * inverse / inflated_scale[None, :]
    mean = jnp.full(dimension, prior_mean, a.dtype)
    for _ in range(2):  # the second round refines the solution of (A + I / s^2) mean = b + m0 / s^2
        residual = b - a @ mean - (mean - prior_mean) / (prior_sd * prior_sd)
        mean = mean + root_precision.T @ (root_precision @ residual)
    hadamard = 2 * jnp.sum(jnp.log(inflated_scale))
    log_det = hadamard + 2 * jnp.sum(jnp.log(jnp.diagonal(factor)))
    log_det = log_det + factor_rounding(dimension) * (hadamard + 40.0 * dimension)
    return Posterior(
        mean=mean,
        gram=a,
        gradient=a @ mean - b,
        scale=scale,
        touched=touched,
        resolved=jnp.all(~touched | (diagonal > SMALLEST_CURVATURE)),
        data_norm=jnp.sqrt(square) / noise_sd + jnp.sum(scale * jnp.abs(mean)),
        root_precision=root_precision,
        log_det=log_det,
        shift=jnp.sum(((mean - prior_mean) / prior_sd) ** 2),
    )


def ratio_ellipsoid(post: Posterior, delta: float | jax.Array) -> Ellipsoid:
    """The ratio set at level `delta`, as a superset that rounding cannot make too small.

    Args:
        post: the posterior.
        delta: level in (0, 1).
    """
    dimension = post.mean.shape[0]
    eps = factor_rounding(dimension)
    _, inverse = _inverse_factor(_unit_diagonal(post.gram, post.scale))
    spread = jnp.sqrt(jnp.sum(inverse * inverse))
    # The smallest eigenvalue is at least 1 / spread^2 and the error matrix's norm at most eps d.
    looseness = eps * dimension * spread * spread
    safe = jnp.where(post.scale > 0, post.scale, 1.0)
    return Ellipsoid(
        level=(post.log_det - 2 * jnp.log(jnp.asarray(delta, post.mean.dtype)) + post.shift) * (1 + 4 * eps),
        inverse_factor=inverse,
        offset=inverse @ jnp.where(post.scale > 0, post.gradient / safe, 0.0),
        offset_error=eps * math.sqrt(dimension) * spread * post.data_norm,
        looseness=looseness,
        spread=spread,
        bounded=post.resolved & (looseness <= MAX_LOOSENESS),
    )


def linear_range(post: Posterior, ellipsoid: Ellipsoid, features: jax.Array) -> Range:
    """Smallest and largest f . w over the ratio set, erring outward.

    Coordinates that no data has touched (A_jj = 0) are dropped where f_j is exactly 0; anywhere
    else, and where the remaining directions are not well determined, the range is the real line.

    With errors tau of the quadratic form and beta of the offset k, the set lies in
    (1 - tau) |x|^2 + 2 x'k* <= R for some |k* - k| <= beta, a ball around -k* / (1 - tau).

    Args:
        post: the posterior.
        ellipsoid: its `ratio_ellipsoid`.
        features: float64[d], f.
    """
    dimension = features.shape[0]
    safe = jnp.where(post.scale > 0, post.scale, 1.0)
    untouched = jnp.any(~post.touched & (features != 0))
    direction = ellipsoid.inverse_factor @ (features / safe)
    # An inexact L^-1 turns the direction by at most this relative amount.
    turned = 4 * factor_rounding(dimension) * math.sqrt(dimension) * ellipsoid.spread
    length = jnp.sqrt(jnp.sum(direction * direction)) * (1 + turned)
    offset_norm = jnp.sqrt(jnp.sum(ellipsoid.offset**2)) * (1 + turned)
    kept = 1 - ellipsoid.looseness
    beta = ellipsoid.offset_error
    radius = jnp.sqrt(ellipsoid.level / kept + ((offset_norm + beta) / kept) ** 2)
    centre = -jnp.sum(direction * ellipsoid.offset) / kept
    reach = length * (radius + (beta + 2 * turned * offset_norm) / kept)
    base = jnp.sum(features * post.mean)
    rounding = factor_rounding(dimension) * (jnp.sum(jnp.abs(features * post.mean)) + reach + jnp.abs(centre))
    known = ellipsoid.bounded & ~untouched & jnp.isfinite(base + centre + reach + rounding)
    unit = direction / jnp.where(length > 0, length, 1.0)

    def attained(sign: float) -> jax.Array:
        x = sign * radius * unit - ellipsoid.offset / kept
        return jnp.where(known, (ellipsoid.inverse_factor.T @ x) / safe, jnp.nan)

    return Range(
        lower=jnp.where(known, base + centre - reach - rounding, -jnp.inf),
        upper=jnp.where(known, base + centre + reach + rounding, jnp.inf),
        at_lower=attained(-1.0),
        at_upper=attained(1.0),
    )


def predictive_moments(post: Posterior, features: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Posterior mean and standard deviation of f . w, without the noise.

    Args:
        post: the posterior.
        features: float64[d], f.
    """
    root = post.root_precision @ features
    return jnp.sum(features * post.mean), jnp.sqrt(jnp.sum(root * root))
