"""What a reset of a world means for what its bounds promise."""

from __future__ import annotations

import functools
from dataclasses import replace

from guardrail.domain import Guarantee, GuaranteeKind


@functools.lru_cache(maxsize=4_096)
def in_generation(guarantee: Guarantee, generation: int) -> Guarantee:
    """The guarantee of bounds from the log of a generation (1 or more); that of the first is as it was.

    Each generation starts from the prior with a delta of its own, and by the union bound the probability that the
    promise fails in any of them is at most the sum (MATH.md, section 8: each world has its own delta).
    """
    if generation == 1 or guarantee.kind is GuaranteeKind.NONE:
        return guarantee
    times = "once" if generation == 2 else f"{generation - 1} times"
    said = (
        f"the world was reset {times}: this is about generation {generation} of its log alone, each generation has "
        "a delta of its own, and over all of them the deltas add up"
    )
    return replace(guarantee, assumptions=(*guarantee.assumptions, said))
