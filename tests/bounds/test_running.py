import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from guardrail import bounds
from guardrail.testing import reference

masks = st.lists(st.booleans(), min_size=5, max_size=5)


@settings(derandomize=True, deadline=None, max_examples=50)
@given(st.lists(masks, min_size=1, max_size=6))
def test_the_running_intersection_lies_in_every_set_and_never_loosens(sets):
    harm = np.array([[0.1], [0.3], [0.5], [0.7], [0.9]])
    so_far, bound = np.ones(5, bool), 0.9
    for step, (now, expected) in enumerate(zip(sets, reference.running(sets), strict=True)):
        so_far = np.asarray(bounds.intersect(so_far, now))
        assert so_far.tolist() == expected.tolist()
        assert all(not so_far[i] or all(s[i] for s in sets[: step + 1]) for i in range(5))
        if not bool(bounds.is_refuted(so_far)):
            tightened = float(np.asarray(bounds.set_bound(so_far, harm))[0])
            assert tightened <= bound
            bound = tightened


def test_an_empty_set_refutes_the_class_and_bounds_by_1():
    empty = bounds.intersect([True, False], [False, True])
    assert bool(bounds.is_refuted(empty))
    assert np.asarray(bounds.set_bound(empty, [[0.0], [0.0]])).tolist() == [1.0]
    assert bool(bounds.is_refuted(np.zeros(0, bool)))
    assert not bool(bounds.is_refuted([False, True]))


def test_sets_of_different_classes_are_refused():
    with pytest.raises(ValueError, match=r"members of shape \(2,\) and now of shape \(3,\)"):
        bounds.intersect([True, True], [True, True, False])
