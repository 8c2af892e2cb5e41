import random
from dataclasses import replace
from types import SimpleNamespace

import pytest

from guardrail.comparison import Compared, Doubt
from guardrail.domain import NO_GUARANTEE, Decision, Verdict
from guardrail.figures.comparison import ComparisonPicture

VERDICT = Verdict(Decision.REJECT, 0.5, 0.2, 0.1, None, None, NO_GUARANTEE, (), "p", "r", "w", 0, "d")


def compared(old, new, *bounds):
    sides = (replace(VERDICT, decision=d, harm_bound=b) for d, b in zip((old, new), bounds, strict=True))
    return Compared(SimpleNamespace(), {}, {}, *sides, None)


def picture(count):
    drawn, chance = ComparisonPicture("p", "as logged", "NEW"), random.Random(1)
    for _ in range(count):
        decisions = (chance.choice(list(Decision)) for _ in range(2))
        drawn.add(compared(*decisions, chance.random(), chance.random()))
    return drawn


def test_equal_comparisons_give_equal_pictures(tmp_path):
    for name in ("one", "two"):
        picture(200).save(tmp_path / name)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_what_is_kept_is_bounded_by_the_picture():
    drawn = ComparisonPicture("p", "as logged", "NEW")
    for number in range(5_000):
        drawn.add(compared(Decision.REJECT, Decision.ACCEPT, 0.5 + number * 1e-9, 0.1))
        drawn.add(replace(compared(Decision.REJECT, Decision.REJECT, 0.5, 0.5), doubt=Doubt("new", "X", "")))
    assert drawn._points == {("now accepted", 250, 50): 5_000}
    assert drawn._doubts == 5_000


@pytest.mark.parametrize("bound", [float("nan"), -1.0, 2.0])
def test_what_is_no_probability_is_drawn_as_no_bound(bound, tmp_path):
    drawn = ComparisonPicture("p", "as logged", "NEW")
    drawn.add(compared(Decision.REJECT, Decision.REJECT, bound, bound))
    assert set(drawn._points) == {("same decision", 500, 500)}
    drawn.save(tmp_path / "picture.png")
