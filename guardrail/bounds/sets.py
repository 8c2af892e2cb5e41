"""The maximum of harm over a set of hypotheses: what turns a confidence set into a harm bound."""

from __future__ import annotations

from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp

from guardrail.bounds import _arrays, _kernels

if TYPE_CHECKING:
    from jax.typing import ArrayLike


@_arrays.in_float64
def set_bound(members: ArrayLike, harm: ArrayLike) -> jax.Array:
    """Largest harm of every action over a set of hypotheses.

    If the set holds the truth, this is an upper bound on the true harm (the paper,
    Proposition 4.5).

    Args:
        members: bool[H], the set.
        harm: float[H, A], harm probabilities.

    Returns:
        float64[A]; 1 for every action if the set is empty, and 1 for an action whose column holds
        NaN or a number outside [0, 1], inside the set or not.

    :raises ValueError: if the shapes do not fit.
    :raises TypeError: if `members` is not Boolean or `harm` does not hold real numbers.
    """
    inside, columns = _arrays.mask("members", members), _arrays.matrix("harm", harm)
    _arrays.same_hypotheses(members=inside, harm=columns)
    return _set_bound(inside, columns)


@_kernels.jitted()
def _set_bound(members: jax.Array, harm: jax.Array) -> jax.Array:
    return _kernels.largest_harm(members, harm.astype(jnp.float64))
