import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from guardrail.errors import LimitExceeded
from guardrail.server.security import rate
from guardrail.server.security.rate import Rate, RateLimiter


def test_a_burst_then_the_rate(clock):
    limiter, limit = RateLimiter(clock), Rate(2.0, 3.0)
    for _ in range(3):
        limiter.take("a", limit)
    with pytest.raises(LimitExceeded) as caught:
        limiter.take("a", limit)
    assert caught.value.reason == "RATE_LIMITED"
    assert caught.value.retry_after == pytest.approx(0.5)
    clock.now += caught.value.retry_after
    limiter.take("a", limit)
    with pytest.raises(LimitExceeded):
        limiter.take("a", limit)
    limiter.take("b", limit)  # others have their own


def test_asking_on_costs_nothing_more(clock):
    limiter, limit = RateLimiter(clock), Rate(1.0, 1.0)
    limiter.take("a", limit)
    for _ in range(100):
        with pytest.raises(LimitExceeded):
            limiter.take("a", limit)
    clock.now += 1.0
    limiter.take("a", limit)


def test_the_number_of_buckets_is_bounded(clock, monkeypatch):
    monkeypatch.setattr(rate, "MAX_BUCKETS", 3)
    limiter, limit = RateLimiter(clock), Rate(1.0, 1.0)
    for name in "abc":
        limiter.take(name, limit)
    with pytest.raises(LimitExceeded):
        limiter.take("a", limit)  # asked last, so it is kept
    limiter.take("d", limit)  # "b" is forgotten
    with pytest.raises(LimitExceeded):
        limiter.take("a", limit)
    limiter.take("b", limit)
    assert len(limiter._buckets) == 3


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.floats(0.1, 1e3), st.integers(1, 50), st.lists(st.floats(0, 5), max_size=200).map(lambda gaps: [0.0, *gaps]))
def test_no_window_holds_more_than_burst_and_rate_allow(per_second, burst, gaps):
    now = [0.0]
    limiter, taken = RateLimiter(lambda: now[0]), []
    for gap in gaps:
        now[0] += gap
        try:
            limiter.take("a", Rate(per_second, burst))
        except LimitExceeded:
            continue
        taken.append(now[0])
    for first in range(len(taken)):
        for last in range(first, len(taken)):
            assert last - first + 1 <= burst + (taken[last] - taken[first]) * per_second + 1e-6
