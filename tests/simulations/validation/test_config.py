"""Impossible parameters are refused with a message that says what would be right."""

import pytest
from pydantic import ValidationError

from simulations.validation.cases import groups
from simulations.validation.config import ValidateConfig


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"delta": 0.0}, "greater than 0"),
        ({"delta": 1.0}, "less than 1"),
        ({"delta": float("nan")}, "finite"),
        ({"budget": -0.1}, "greater than 0"),
        ({"delta": 0.5, "budget": 0.5}, "must be below 1"),
        ({"runs": 0}, "greater than or equal to 1"),
        ({"horizon_scale": 0.0}, "greater than 0"),
        ({"confidence": 1.0}, "less than 1"),
        ({"seed": -1}, "greater than or equal to 0"),
        ({"seed": 2**32}, "less than or equal to"),
        ({"chunk": 0}, "greater than or equal to 1"),
        ({"classes": []}, "name at least one"),
        ({"agents": ["random", "random"]}, "named more than once: random"),
        ({"bounds": ["ratoi"]}, "'ratio'"),
        ({"step": 5}, "Extra inputs"),
    ],
)
def test_what_is_impossible_is_refused(wrong, message):
    with pytest.raises(ValidationError, match=message):
        ValidateConfig(**wrong)


def test_a_choice_that_leaves_nothing_to_try_is_refused():
    with pytest.raises(ValidationError, match="no case is left"):
        ValidateConfig(classes=("gaussian",), bounds=("weak",))


def test_the_horizon_scales_and_the_enumeration_does_not():
    small, whole = groups(ValidateConfig(horizon_scale=0.01)), groups(ValidateConfig())
    assert {group.horizon for group in small if group.exact} == {12}
    assert max(group.horizon for group in small) == 100
    assert max(group.horizon for group in whole) == 10_000
