import numpy as np
import pytest

from guardrail import bounds


def test_it_is_the_harm_of_the_largest_posterior_times_harm():
    # 0.6 * 0.1 < 0.3 * 0.5 > 0.1 * 1.0
    np.testing.assert_allclose(bounds.iid(np.log([0.6, 0.3, 0.1]), [[0.1], [0.5], [1.0]]), [0.5])


@pytest.mark.parametrize("order", [[0, 1, 2], [2, 1, 0], [1, 2, 0]])
def test_a_tie_takes_the_largest_harm(order):
    # Products 0.1, 0.1, 0.1, the last two equal up to rounding only.
    posterior, harm = np.array([0.625, 0.25, 0.125]), np.array([[0.16], [0.4], [0.8]])
    np.testing.assert_allclose(bounds.iid(np.log(posterior[order]), harm[order]), [0.8])


def test_a_tie_up_to_rounding_counts_and_a_real_difference_does_not():
    def bound(second):
        return float(np.asarray(bounds.iid([0.0, second], [[0.25], [0.5]]))[0])

    assert bound(np.log(0.5) - 1e-14) == 0.5
    assert bound(np.log(0.5) - 1e-9) == 0.25


def test_products_that_underflow_are_kept_apart():
    np.testing.assert_allclose(bounds.iid([0.0, -800.0, -810.0], [[0.0], [0.3], [0.9]]), [0.3])


def test_where_every_product_is_zero_all_are_tied():
    np.testing.assert_allclose(bounds.iid([0.0, -np.inf], [[0.0, 0.0], [0.7, 0.0]]), [0.7, 0.0])


@pytest.mark.parametrize("log_posterior", [[np.nan, 0.0], [np.inf, 0.0], [-np.inf, -np.inf]])
def test_what_is_no_posterior_gives_1(log_posterior):
    assert np.asarray(bounds.iid(log_posterior, [[0.1, 0.0], [0.2, 0.0]])).tolist() == [1.0, 1.0]
