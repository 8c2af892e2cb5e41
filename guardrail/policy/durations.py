"""Durations in a policy: `90s`, `15m`, `24h`, `7d`, held as seconds."""

from __future__ import annotations

import re
from typing import Annotated, Final

from pydantic import BeforeValidator, Field, PlainSerializer
from pydantic_core import PydanticCustomError

SECONDS: Final = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}
"""Seconds in each unit."""
LONGEST: Final = 30 * SECONDS["d"]
"""Longest duration that a policy may name, in seconds."""

_FORM: Final = re.compile(r"([0-9]{1,9})([smhd])", re.ASCII)


def seconds(text: object) -> float:
    """The seconds of a duration as a policy writes it.

    :raises PydanticCustomError: (a ValueError) if it is no duration, or not between 1 second and 30 days.
    """
    found = _FORM.fullmatch(text) if isinstance(text, str) else None
    if found is not None:
        value = int(found[1]) * SECONDS[found[2]]
        if 1 <= value <= LONGEST:
            return float(value)
    raise PydanticCustomError(
        "duration", "needs a whole number and a unit, such as 90s, 15m, 24h or 7d, from 1s to 30d"
    )


def written(duration: float) -> str:
    """A duration of whole seconds as a policy writes it, in the largest unit that divides it."""
    unit = next(unit for unit in "dhms" if duration % SECONDS[unit] == 0)
    return f"{duration / SECONDS[unit]:.0f}{unit}"


Duration = Annotated[
    float,
    BeforeValidator(seconds, json_schema_input_type=str),
    PlainSerializer(written, return_type=str),
    Field(json_schema_extra={"pattern": "^[0-9]{1,9}[smhd]$"}),
]
"""Seconds, whole, from 1 to 2,592,000 (30 days). A default is written as in a policy, with `validate_default=True`."""
