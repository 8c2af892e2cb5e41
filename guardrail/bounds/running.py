"""Running intersection of sets that hold the truth at all times at once.

The ratio set and the plausible set hold the truth for all t at once with probability at least
1 - delta (Ville's inequality; the paper, Lemma 4.1 and Proposition 4.2; Waudby-Smith and Ramdas
2020). On that event the truth is in every set so far, hence in their intersection, at no cost
in delta. So the bound for a fixed action never loosens as data arrives.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from guardrail.bounds import _arrays, _kernels

if TYPE_CHECKING:
    import jax
    from jax.typing import ArrayLike


@_arrays.in_float64
def intersect(members: ArrayLike, now: ArrayLike) -> jax.Array:
    """Intersection so far with the set of this moment.

    Sound only for sets whose guarantee holds at all times at once and that share one delta, one
    prior and one stream of observations.

    Args:
        members: bool[H], the intersection so far; all True before any set.
        now: bool[H], the present set.

    Returns:
        bool[H], a subset of both.

    :raises ValueError: if the shapes differ.
    :raises TypeError: if one of them is not Boolean.
    """
    so_far, present = _arrays.mask("members", members), _arrays.mask("now", now)
    _arrays.same_hypotheses(members=so_far, now=present)
    return _intersect(so_far, present)


@_arrays.in_float64
def is_refuted(members: ArrayLike) -> jax.Array:
    """Whether a set is empty: the class of hypotheses is then refuted at level delta.

    Args:
        members: bool[H].

    Returns:
        bool[]; True if no hypothesis is left, in particular if there was none.

    :raises ValueError: if `members` has not exactly one axis.
    :raises TypeError: if it is not Boolean.
    """
    return _is_refuted(_arrays.mask("members", members))


@_kernels.jitted()
def _intersect(members: jax.Array, now: jax.Array) -> jax.Array:
    return members & now


@_kernels.jitted()
def _is_refuted(members: jax.Array) -> jax.Array:
    return ~members.any()
