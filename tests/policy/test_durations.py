"""Durations in policies."""

from __future__ import annotations

import pytest
from pydantic import BaseModel, ValidationError

from guardrail.policy.durations import Duration


class Holder(BaseModel, strict=True):
    wait: Duration


@pytest.mark.parametrize(
    ("text", "seconds", "again"),
    [
        ("90s", 90, "90s"),
        ("15m", 900, "15m"),
        ("24h", 86_400, "1d"),
        ("7d", 604_800, "7d"),
        ("1s", 1, "1s"),
        ("30d", 2_592_000, "30d"),
        ("3600s", 3_600, "1h"),
    ],
)
def test_a_duration_is_read_as_seconds_and_written_again(text, seconds, again):
    held = Holder(wait=text)
    assert held.wait == seconds
    assert held.model_dump()["wait"] == again
    assert Holder.model_validate_json(held.model_dump_json()) == held


@pytest.mark.parametrize(
    "text",
    ["", "15", "m", "-1m", "1.5h", "15 m", "15M", "0s", "31d", "9999999999s", "٣s", "15m\n", 900, 15.0, True, None],
)
def test_anything_else_is_refused(text):
    with pytest.raises(ValidationError, match="needs a whole number and a unit"):
        Holder(wait=text)
