"""Largest linear function over the intersection of an ellipsoid and a box, bounded by weak duality.

For the set { v : v'A v + 2 v'g <= R, l <= v <= u }, any multiplier m >= 0 and any point x of the box,

    max f.v  <=  L(x) + sum_j max(h_j (u_j - x_j), h_j (l_j - x_j)),
    L(x) = f.x + m (R - x'A x - 2 x'g),     h = f - 2 m (A x + g),

because L is concave and h its gradient: a concave function lies below its tangent, and over a box
a tangent is maximised coordinate by coordinate. So the search below (a primal-dual interior-point
method, Mehrotra 1992) is only a way to good (m, x): the result is an upper bound wherever it
stops, and the smallest bound of all its iterates is kept. A itself may be singular.

With f = 0 the same inequality certifies emptiness: a bound below 0 means that no point is left.

JAX functions of arrays; call them under `jax.enable_x64(True)`.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from guardrail.bounds.ellipsoid import SUM_ROUNDING, Posterior, factor_rounding

MAX_ITERATIONS = 50
TOLERANCE = 1e-9
"""The search ends when bound and a feasible value are this close, relative to half the box's range."""

_TO_BOUNDARY = 0.99
_SMALLEST_GAP = 0.1 * TOLERANCE
_INTERIOR = 0.1
"""Closest to a face that a search begins, in half-widths of the box."""


class Problem(NamedTuple):
    """The set in units of the box's half-width, scaled to level 1: x'A x + 2 x'g <= 1, l <= x <= u.

    Attributes:
        gram: float64[d, d], A.
        gradient: float64[d], g.
        scale: float64[d], sqrt(A_jj).
        lower: float64[d], l.
        upper: float64[d], u; u - l = 2 up to rounding.
        start: float64[d], a point inside the box and, if one was found, inside the ellipsoid.
        half_width: float64[], half of the box's width in the weights' unit.
        resolved: bool[], False if only the box may be relied on.
        empty: bool[], True if the intersection is certainly empty.
    """

    gram: jax.Array
    gradient: jax.Array
    scale: jax.Array
    lower: jax.Array
    upper: jax.Array
    start: jax.Array
    half_width: jax.Array
    resolved: jax.Array
    empty: jax.Array


class _Search(NamedTuple):
    x: jax.Array
    lower_dual: jax.Array
    upper_dual: jax.Array
    slack: jax.Array
    multiplier: jax.Array
    bound: jax.Array
    best_x: jax.Array
    iteration: jax.Array
    done: jax.Array


def _certificate(problem: Problem, f: jax.Array, x: jax.Array, multiplier: jax.Array, ax: jax.Array) -> jax.Array:
    """The weak-duality bound at (multiplier, x), plus an allowance for its own rounding."""
    g, lower, upper, scale = problem.gradient, problem.lower, problem.upper, problem.scale
    quadratic = jnp.sum(x * ax) + 2 * jnp.sum(x * g)
    slope = f - 2 * multiplier * (ax + g)
    tangent = jnp.sum(jnp.maximum(slope * (upper - x), slope * (lower - x)))
    reach = jnp.sum(scale * jnp.abs(x))
    size_of_slope = jnp.abs(f) + 2 * multiplier * (scale * reach + jnp.abs(g))
    size = (
        jnp.sum(jnp.abs(f * x))
        + multiplier * (1 + reach * reach + 2 * jnp.sum(jnp.abs(x * g)))
        + jnp.sum(size_of_slope * (jnp.abs(upper) + jnp.abs(lower) + jnp.abs(x)))
    )
    return jnp.sum(f * x) + multiplier * (1 - quadratic) + tangent + factor_rounding(x.shape[0]) * size


def _step_to_boundary(value: jax.Array, change: jax.Array) -> jax.Array:
    """Largest step in [0, 1] that keeps value + step * change >= 0."""
    ratio = jnp.where(change < 0, value / jnp.where(change < 0, -change, 1.0), jnp.inf)
    return jnp.minimum(1.0, jnp.min(ratio))


class _Move(NamedTuple):
    x: jax.Array
    lower_dual: jax.Array
    upper_dual: jax.Array
    slack: jax.Array
    multiplier: jax.Array


def _moves(problem: Problem, f: jax.Array, state: _Search, ax: jax.Array) -> tuple[_Move, _Move]:
    """The Newton step for complementarity target t is first + t * second."""
    x, zl, zu, s, m = state.x, state.lower_dual, state.upper_dual, state.slack, state.multiplier
    dl, du = x - problem.lower, problem.upper - x
    normal = 2 * (ax + problem.gradient)
    primal = 1 - jnp.sum(x * ax) - 2 * jnp.sum(x * problem.gradient) - s
    matrix = 2 * m * problem.gram + jnp.diag(zl / dl + zu / du) + (m / s) * normal[:, None] * normal[None, :]
    push = -m * (s + primal) / s
    right = jnp.stack([f - (m + push) * normal, 1 / dl - 1 / du - normal / s], axis=1)
    factor = jax.lax.linalg.cholesky(matrix, symmetrize_input=False)
    half = jax.lax.linalg.triangular_solve(factor, right, left_side=True, lower=True)
    dx = jax.lax.linalg.triangular_solve(factor, half, left_side=True, lower=True, transpose_a=True).T
    along = dx @ normal
    target = jnp.arange(2.0, dtype=x.dtype)
    dzl = target[:, None] / dl - (1 - target)[:, None] * zl - zl * dx / dl
    dzu = target[:, None] / du - (1 - target)[:, None] * zu + zu * dx / du
    ds = (1 - target) * primal - along
    dm = jnp.where(target == 0, push, 1 / s) + m * along / s
    first, second = (_Move(dx[k], dzl[k], dzu[k], ds[k], dm[k]) for k in (0, 1))
    return first, second


def _newton(problem: Problem, f: jax.Array, state: _Search, ax: jax.Array) -> _Search:
    """One predictor-corrector step towards the optimality conditions of `maximum`."""
    x, zl, zu, s, m = state.x, state.lower_dual, state.upper_dual, state.slack, state.multiplier
    # Everything that must stay positive: distances to the faces and slack; their multipliers.
    primal = jnp.concatenate([x - problem.lower, problem.upper - x, s[None]])
    dual = jnp.concatenate([zl, zu, m[None]])

    def changes(move: _Move) -> tuple[jax.Array, jax.Array]:
        return (
            jnp.concatenate([move.x, -move.x, move.slack[None]]),
            jnp.concatenate([move.lower_dual, move.upper_dual, move.multiplier[None]]),
        )

    first, second = _moves(problem, f, state, ax)
    dprimal, ddual = changes(first)
    p, q = _step_to_boundary(primal, dprimal), _step_to_boundary(dual, ddual)
    gap, left = jnp.mean(primal * dual), jnp.mean((primal + p * dprimal) * (dual + q * ddual))
    # Below the tolerance a smaller target only costs digits.
    target = jnp.maximum(gap * jnp.clip((left / gap) ** 3, 1e-4, 1.0), _SMALLEST_GAP / len(primal))
    move = _Move(*(a + target * b for a, b in zip(first, second, strict=True)))
    dprimal, ddual = changes(move)
    p, q = _TO_BOUNDARY * _step_to_boundary(primal, dprimal), _TO_BOUNDARY * _step_to_boundary(dual, ddual)
    return state._replace(
        x=x + p * move.x,
        lower_dual=zl + q * move.lower_dual,
        upper_dual=zu + q * move.upper_dual,
        slack=s + p * move.slack,
        multiplier=m + q * move.multiplier,
    )


def _search(problem: Problem, f: jax.Array, bound: jax.Array, done: jax.Array, *, seek_point: bool) -> _Search:
    """Lower `bound` on max f.x as far as it goes, or (`seek_point`, f = 0) until a point or emptiness is shown."""
    x = problem.start
    quadratic = jnp.sum(x * (problem.gram @ x)) + 2 * jnp.sum(x * problem.gradient)
    slack = jnp.maximum(1 - quadratic, 0.1)
    begin = 0.1
    state = _Search(
        x=x,
        lower_dual=begin / (x - problem.lower),
        upper_dual=begin / (problem.upper - x),
        slack=slack,
        multiplier=begin / slack,
        bound=bound,
        best_x=x,
        iteration=jnp.zeros((), jnp.int32),
        done=done,
    )

    def advance(state: _Search) -> _Search:
        x = state.x
        ax = problem.gram @ x
        found = _certificate(problem, f, x, state.multiplier, ax)
        # A bound that is not a number compares as false and is never taken.
        better = (found < state.bound) & (state.multiplier >= 0)
        bound = jnp.where(better, found, state.bound)
        feasible = jnp.sum(x * ax) + 2 * jnp.sum(x * problem.gradient) <= 1
        if seek_point:
            done = feasible | (bound < 0)
        else:
            done = feasible & (bound - jnp.sum(f * x) <= TOLERANCE)
        moved = _newton(problem, f, state, ax)
        return moved._replace(
            bound=bound,
            best_x=x,
            iteration=state.iteration + 1,
            done=done | ~jnp.all(jnp.isfinite(moved.x)) | ~jnp.isfinite(moved.multiplier),
        )

    return jax.lax.while_loop(lambda s: ~s.done & (s.iteration < MAX_ITERATIONS), advance, state)


def boxed(post: Posterior, level: jax.Array, lower: float | jax.Array, upper: float | jax.Array) -> Problem:
    """The ratio set of Gaussian linear regression restricted to lower <= w_j <= upper.

    The level grows by what the errors of A and g can amount to anywhere in the box (see
    `ellipsoid`), so the set of the result contains the exact one.

    Args:
        post: the posterior; weights here are w = mean + half_width * x.
        level: float64[], R of the unrestricted set.
        lower: smallest weight.
        upper: largest weight, > lower.
    """
    dimension = post.mean.shape[0]
    half_width = jnp.asarray(upper / 2 - lower / 2, post.mean.dtype)
    edge_rounding = 2.0**-50 * (jnp.abs(post.mean) + jnp.maximum(jnp.abs(lower), jnp.abs(upper))) / half_width
    low = (lower - post.mean) / half_width - edge_rounding
    high = (upper - post.mean) / half_width + edge_rounding
    extent = half_width * jnp.sum(post.scale * jnp.maximum(jnp.abs(low), jnp.abs(high)))
    room = level + extent * (SUM_ROUNDING * extent + 2 * factor_rounding(dimension) * post.data_norm)
    problem = Problem(
        gram=post.gram * (half_width * half_width / room),
        gradient=post.gradient * (half_width / room),
        scale=post.scale * (half_width / jnp.sqrt(room)),
        lower=low,
        upper=high,
        start=jnp.clip(jnp.zeros_like(low), low + _INTERIOR, high - _INTERIOR),
        half_width=half_width,
        resolved=post.resolved & jnp.isfinite(room),
        empty=jnp.zeros((), bool),
    )
    found = _search(problem, jnp.zeros_like(low), jnp.zeros_like(room), ~problem.resolved, seek_point=True)
    inside = jnp.clip(found.best_x, low + 1e-9, high - 1e-9)
    return problem._replace(start=inside, empty=problem.resolved & (found.bound < 0))


def maximum(problem: Problem, f: jax.Array, known: jax.Array, attained_at: jax.Array) -> tuple[jax.Array, jax.Array]:
    """An upper bound on f . (w - mean) over the set, and whether it proves the set empty.

    Args:
        problem: the set.
        f: float64[d].
        known: float64[], an upper bound found without the box; infinite if there is none.
        attained_at: float64[d], the w - mean that attains `known`, NaN if there is none. If the
            box contains it, the box changes nothing and no search is made.

    Returns:
        The bound, float64[], in the unit of f . w; and bool[], True if it lies below the smallest
        value in the box, so that no point is left.
    """
    size = jnp.sum(jnp.abs(f)) * problem.half_width
    safe = jnp.where(size > 0, size, 1.0)
    unit = f * problem.half_width / safe
    largest = jnp.sum(jnp.maximum(unit * problem.upper, unit * problem.lower))
    smallest = jnp.sum(jnp.minimum(unit * problem.upper, unit * problem.lower))
    at = attained_at / problem.half_width
    unaffected = jnp.all((problem.lower < at) & (at < problem.upper))
    bound = jnp.minimum(known / safe, largest)
    bound = _search(problem, unit, bound, unaffected | (size == 0) | ~problem.resolved, seek_point=False).bound
    extent = jnp.max(jnp.maximum(jnp.abs(problem.lower), jnp.abs(problem.upper)))
    rounding = factor_rounding(f.shape[0]) * (1 + extent)
    return size * (bound + rounding), (size > 0) & (bound < smallest - rounding)
