import itertools
import math
from fractions import Fraction

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from guardrail.hypotheses.product_grid import ProductGrid, outer_sum
from guardrail.policy.schema import MAX_HYPOTHESES


def grid_of(sizes):
    return ProductGrid([np.arange(size, dtype=np.float64) for size in sizes])


def sums(grid, factors):
    with jax.enable_x64(True):
        return np.asarray(
            jax.jit(lambda arrays, f: outer_sum(*grid.halves(arrays, f)))(grid.arrays, np.asarray(factors))
        )


SIZES = [(1,), (5,), (3, 2), (2, 3, 4), (1, 7, 1), (100, 2), (2, 100), (2, 2, 2, 2, 2)]


@pytest.mark.parametrize("sizes", SIZES)
def test_sums_are_those_of_all_combinations_in_order(sizes):
    grid, factors = grid_of(sizes), 10.0 ** np.arange(len(sizes))
    combinations = list(itertools.product(*(range(size) for size in sizes)))
    assert sums(grid, factors).tolist() == [float(factors @ combination) for combination in combinations]
    assert grid.size == len(combinations)
    assert grid.size % grid.width == 0
    assert [grid.point(index) for index in range(grid.size)] == combinations
    assert float(grid.magnitude(-factors)) == max(factors @ combination for combination in combinations)


@pytest.mark.parametrize("sizes", SIZES)
def test_sum_of_axes(sizes):
    terms = [10.0**axis * np.arange(1, size + 1) for axis, size in enumerate(sizes)]
    expected = [sum(combination) for combination in itertools.product(*terms)]
    assert grid_of(sizes).sum_of_axes(terms).tolist() == expected


@pytest.mark.parametrize(
    ("sizes", "width"), [((4,) * 10, 4**5), ((4,) * 5, 4**3), ((100_000,), 10**5), ((2, 99, 2), 198)]
)
def test_halves_are_about_alike(sizes, width):
    assert grid_of(sizes).width == width


ROUNDED = grid_of((3, 2, 4, 2))
ROUNDED_KERNEL = jax.jit(lambda arrays, f: (outer_sum(*ROUNDED.halves(arrays, f)), ROUNDED.magnitude(f)))


@settings(derandomize=True, deadline=None, max_examples=50)
@given(st.lists(st.floats(-1e9, 1e9), min_size=4, max_size=4))
def test_rounding_is_covered(factors):
    with jax.enable_x64(True):
        computed, magnitude = map(np.asarray, ROUNDED_KERNEL(ROUNDED.arrays, np.asarray(factors)))
    allowed = Fraction(float(ROUNDED.sum_rounding(magnitude)))
    for index, number in enumerate(computed):
        exact = sum(Fraction(f) * Fraction(v) for f, v in zip(factors, ROUNDED.point(index), strict=True))
        assert abs(Fraction(float(number)) - exact) <= allowed


@pytest.mark.parametrize("sizes", [(), (0,), (3, 0), (4,) * 14])
def test_refuses_what_is_no_grid_or_too_large(sizes):
    with pytest.raises(ValueError, match=r"grid|too many"):
        grid_of(sizes)


def test_takes_the_largest_class():
    assert grid_of((2,) * int(math.log2(MAX_HYPOTHESES))).size == MAX_HYPOTHESES
