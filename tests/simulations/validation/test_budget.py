"""The accounting of a harm budget."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulations.validation import budget

probabilities = st.floats(0.0, 1.0)


@settings(deadline=None, max_examples=50)
@given(st.lists(st.lists(probabilities, min_size=3, max_size=3), min_size=1, max_size=20), st.floats(0.0, 2.0))
def test_the_accepted_bounds_never_add_up_to_more_than_the_budget(steps, limit):
    with jax.enable_x64(True):
        spent, accepted = jnp.zeros(()), []
        for bounds in steps:
            allowed = np.asarray(budget.affordable(spent, jnp.asarray(bounds), jnp.asarray(limit)))
            # The dearest action that may be accepted is taken: no agent spends faster.
            chosen = max((b for b, may in zip(bounds, allowed, strict=True) if may), default=None)
            if chosen is not None:
                accepted.append(chosen)
            spent = budget.spend(spent, jnp.asarray(chosen or 0.0), jnp.asarray(chosen is not None))
        assert float(spent) <= limit
        assert float(spent) == pytest.approx(sum(accepted))


@pytest.mark.parametrize(
    ("spent", "bound", "limit", "expected"),
    [
        (0.0, 0.2, 0.2, False),  # on the edge rounding is charged, so the edge is out
        (0.0, 0.19, 0.2, True),
        (0.1, 0.19, 0.2, False),
        (0.0, 0.0, 0.2, True),
        (0.0, 0.0, 0.0, True),
        (0.0, float("nan"), 0.2, False),
        (float("nan"), 0.1, 0.2, False),
        (0.0, -0.1, 0.2, False),
        (5.0, 1.0, float("inf"), True),
        (0.0, float("inf"), 0.2, False),
    ],
)
def test_what_is_affordable(spent, bound, limit, expected):
    with jax.enable_x64(True):
        allowed = budget.affordable(jnp.asarray(spent), jnp.asarray([bound]), jnp.asarray(limit))
    assert allowed.tolist() == [expected]


def test_a_rejected_action_costs_nothing():
    spent = budget.spend(jnp.asarray(0.5), jnp.asarray([0.25, 0.25]), jnp.asarray([True, False]))
    assert spent.tolist() == [0.75, 0.5]


def test_the_promise_is_delta_plus_the_budget_and_no_more_than_certainty():
    assert budget.promise(0.05, 0.2) == pytest.approx(0.25)
    assert budget.promise(0.5, 0.9) == 1.0
