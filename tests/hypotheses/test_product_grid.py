import functools
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


@functools.cache
def kernel(grid):
    return jax.jit(lambda terms: outer_sum(*grid.halves(terms)))


def sums(grid, terms):
    with jax.enable_x64(True):
        return np.asarray(kernel(grid)([np.asarray(term, np.float64) for term in terms]))


@pytest.mark.parametrize("sizes", [(1,), (5,), (3, 2), (2, 3, 4), (1, 7, 1), (100, 2), (2, 100), (2, 2, 2, 2, 2)])
def test_sums_are_those_of_all_combinations_in_order(sizes):
    grid = ProductGrid(sizes)
    terms = [10.0**axis * np.arange(1, size + 1) for axis, size in enumerate(sizes)]
    expected = [sum(combination) for combination in itertools.product(*terms)]
    assert sums(grid, terms).tolist() == expected
    assert grid.size == len(expected)
    assert grid.size % grid.width == 0


@pytest.mark.parametrize("sizes", [(3, 2), (2, 3, 4), (1, 7, 1)])
def test_coordinates_name_the_combination(sizes):
    grid = ProductGrid(sizes)
    places = [grid.coordinates(index) for index in range(grid.size)]
    assert places == list(itertools.product(*map(range, sizes)))


@pytest.mark.parametrize(("sizes", "split"), [((4,) * 10, 5), ((4,) * 5, 2), ((100_000,), 0), ((2, 1000, 2), 1)])
def test_halves_are_about_alike(sizes, split):
    assert ProductGrid(sizes).split == split


ROUNDED = ProductGrid((3, 2, 4, 2))


@settings(derandomize=True, deadline=None, max_examples=50)
@given(st.lists(st.floats(-1e9, 1e9), min_size=4, max_size=4))
def test_rounding_is_covered(factors):
    computed = sums(
        ROUNDED, [factor * np.arange(levels) for factor, levels in zip(factors, ROUNDED.sizes, strict=True)]
    )
    magnitude = sum(abs(factor) * (levels - 1) for factor, levels in zip(factors, ROUNDED.sizes, strict=True))
    allowed = Fraction(float(ROUNDED.sum_rounding(np.float64(magnitude))))
    for index, number in enumerate(computed):
        places = ROUNDED.coordinates(index)
        exact = sum(Fraction(factor) * place for factor, place in zip(factors, places, strict=True))
        assert abs(Fraction(float(number)) - exact) <= allowed


@pytest.mark.parametrize("sizes", [(), (0,), (3, 0), (4,) * 12])
def test_refuses_what_is_no_grid_or_too_large(sizes):
    with pytest.raises(ValueError, match=r"grid|too many"):
        ProductGrid(sizes)


def test_takes_the_largest_class():
    assert ProductGrid((2,) * int(math.log2(MAX_HYPOTHESES))).size == MAX_HYPOTHESES
