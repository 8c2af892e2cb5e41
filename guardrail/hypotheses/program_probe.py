"""Whether a program is what it must be: a pure function of its seed, with a prior that nothing else moves."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.interpreters import partial_eval

from guardrail.domain import ModelHarm
from guardrail.hypotheses.program_model import HARM

if TYPE_CHECKING:
    import numpy.typing as npt

    from guardrail.hypotheses.program_model import ProgramModel

PROBES = 8
"""Hypotheses that are looked at."""


def verify(model: ProgramModel, seed: jax.Array, examples: npt.NDArray[np.float64]) -> str:
    """Run a program in several ways that must agree; returns a digest of its numbers, equal for equal programs.

    Args:
        model: the program, inspected.
        seed: of the probes.
        examples: float64[E, F], example inputs.

    :raises ProgramError: if it is not a function of its seed, its latent values depend on the inputs or on the
        outcome, its harm depends on the outcome, or a latent value is no finite number.
    """
    with jax.enable_x64(True):
        row = jnp.asarray(examples[0])
        _check_dependence(model, seed, row)
        keys = jax.random.split(seed, PROBES)
        first = _probe(model)
        numbers = jax.tree.map(np.asarray, first(keys, row))
        latents = numbers[0]
        for site, values in latents.items():
            if not np.isfinite(values).all():
                raise model.error(f"draws a value of latent site {site!r} that is no finite number")
        # Another compilation runs the program's Python once more.
        again = jax.tree.map(np.asarray, _probe(model)(keys, row))
        if not _equal(numbers, again):
            raise model.error(
                "is not a function of its seed: two runs with the same key give different numbers; use no random "
                "numbers but those of sample sites, no clock, and no state that a call changes"
            )
        elsewhere = jax.tree.map(np.asarray, first(keys, _another(model, examples)))
        for site in latents:
            if not np.array_equal(latents[site], elsewhere[0][site]):
                raise model.error(
                    f"draws latent site {site!r} from a prior that depends on the inputs; a hypothesis is one model "
                    "for all inputs, so its prior must not see them"
                )
        rest = [jax.tree.map(np.asarray, first(keys, jnp.asarray(example))) for example in examples[1:-1]]
    digest = hashlib.sha256()
    for leaf in jax.tree.leaves((numbers, elsewhere, rest)):
        digest.update(np.ascontiguousarray(leaf).tobytes())
    return digest.hexdigest()


def _probe(model: ProgramModel) -> Any:
    def one(key: jax.Array, row: jax.Array) -> Any:
        latents, outcome = model.prior_draw(key, row)
        value = jnp.asarray(outcome, jnp.float64)
        numbers = {"outcome": value, "log_probability": model.log_probability(latents, row, value)}
        if isinstance(model.harm, ModelHarm):
            numbers[HARM] = model.harm_probability(latents, row)
        return dict(latents), numbers

    return jax.jit(lambda keys, row: jax.vmap(lambda key: one(key, row))(keys))


def _check_dependence(model: ProgramModel, seed: jax.Array, row: jax.Array) -> None:
    def of_outcome(outcome: jax.Array) -> tuple[Any, Any]:
        latents = model.latents_given_outcome(seed, row, outcome)
        harm = model.harm_probability(latents, row, outcome=outcome) if isinstance(model.harm, ModelHarm) else row[:0]
        return latents, harm

    jaxpr = jax.make_jaxpr(of_outcome)(jnp.zeros(())).jaxpr
    for place in range(len(jaxpr.outvars)):
        kept = [other == place for other in range(len(jaxpr.outvars))]
        _, used = partial_eval.dce_jaxpr(jaxpr, kept)
        if used[0] and place < len(model.sites):
            raise model.error(
                f"draws the latent site {sorted(model.sites)[place]!r} from the outcome; what is unknown must not "
                "depend on what is observed"
            )
        if used[0]:
            raise model.error(
                "computes site 'harm' from the outcome; it must be the probability of harm given the latent values, "
                "or leave it out and write harm: in the policy"
            )


def _another(model: ProgramModel, examples: npt.NDArray[np.float64]) -> jax.Array:
    """Another input than the first example."""
    if len(examples) > 1:
        return jnp.asarray(examples[-1])
    row = 0.75 * examples[0] + 0.125
    if model.inputs.has_category:
        row[-1] = examples[0][-1]
    return jnp.asarray(row)


def _equal(left: Any, right: Any) -> bool:
    leaves, others = jax.tree.leaves(left), jax.tree.leaves(right)
    same = (np.array_equal(a, b, equal_nan=True) for a, b in zip(leaves, others, strict=False))
    return len(leaves) == len(others) and all(same)
