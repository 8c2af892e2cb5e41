"""What every finite class made from a program assumes, in words and numbers."""

from __future__ import annotations

from guardrail.hypotheses.program_harm import MARGIN

LIKELIHOOD_ROUNDING = 1e-8
"""Absolute error allowed to a log-likelihood: some 1e7 roundings of a number of size 1."""
MAX_SHOWN_PARAMETERS = 32
"""Latent values that are shown of one hypothesis."""
STORED_BYTES = 256 * 2**20
"""A class whose latent values take at most this is stored."""

INDEPENDENT = "outcomes are independent given the inputs and the program's latent values, which never change"
ARITHMETIC = (
    f"the program's own arithmetic errs by less than {LIKELIHOOD_ROUNDING:g} in a log-likelihood and "
    f"{MARGIN:g} in a harm probability"
)


def class_in_words(size: int, name: str, seed: int | None) -> str:
    """What the theorem is relative to.

    Args:
        size: number of hypotheses.
        name: how the policy calls the program.
        seed: of the draws; None for a grid.
    """
    how = f"on a grid of quantiles of the prior of {name}"
    if seed is not None:
        how = f"drawn from the prior of {name} with seed {seed}"
    return (
        f"the truth is one of {size} hypotheses {how}: the promise is relative to these, "
        "not to everything that the program could say"
    )
