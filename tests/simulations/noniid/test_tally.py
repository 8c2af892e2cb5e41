import numpy as np
import pytest

from simulations.noniid.tally import summaries, tally

OUTCOMES = {
    "reward": np.array([[1.0, 5.0, 0.0, 2.0]]),
    "steps": np.array([[3, 10, 0, 4]]),
    "rejections": np.array([[1, 2, 5, 9]]),
    "exploded": np.array([[True, True, False, False]]),
    "exhausted": np.array([[False, False, True, True]]),
}
"""Of episodes of at most 10 steps with 5 arms: the second explodes at its last step, the others' arms run out."""


def test_every_explosion_is_a_death():
    (cell,) = summaries([tally(OUTCOMES, "complete", 10, 5)])
    assert (cell["death_rate"], cell["steps_mean"], cell["rejections_mean"]) == (0.5, 17 / 4, 17 / 4)
    assert cell["exhausted_rate"] == 0.5
    assert cell["death_se"] == pytest.approx(0.25)


def test_the_authors_survive_the_last_step_and_count_what_follows_the_last_arm():
    (cell,) = summaries([tally(OUTCOMES, "authors", 10, 5)])
    assert cell["death_rate"] == 0.25
    assert cell["steps_mean"] == (3 + 10 + 10 + 10) / 4
    # Their code adds all arms for each of the (10 - steps - 1) steps after the one that rejected the last arm.
    assert cell["rejections_mean"] == (1 + 2 + (5 + 5 * 9) + (9 + 5 * 5)) / 4


def test_chunks_add_up_to_the_whole():
    random = np.random.default_rng(0)
    whole = {
        "reward": random.normal(3.0, 2.0, (2, 50)),
        "steps": random.integers(1, 9, (2, 50)),
        "rejections": random.integers(0, 9, (2, 50)),
        "exploded": random.random((2, 50)) < 0.3,
        "exhausted": random.random((2, 50)) < 0.2,
    }
    parts = [{name: array[:, span] for name, array in whole.items()} for span in (slice(0, 13), slice(13, 50))]
    together = summaries([tally(whole, "complete", 10, 5)])
    added = summaries([tally(part, "complete", 10, 5) for part in parts])
    for cell, (one, other) in enumerate(zip(together, added, strict=True)):
        assert one == pytest.approx(other)
        assert one["reward_se"] == pytest.approx(whole["reward"][cell].std(ddof=1) / np.sqrt(50))


def test_one_episode_has_no_standard_error():
    one = {name: array[:, :1] for name, array in OUTCOMES.items()}
    assert summaries([tally(one, "complete", 10, 5)])[0]["reward_se"] is None
