import warnings

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

import simulations.environments  # noqa: F401  (registers the environment)
from simulations.environments import ExplodingBandit

ID = "guardrail/ExplodingBandit-v0"


def play(env, seed, actions):
    features, _ = env.reset(seed=seed)
    trace = [features.tolist()]
    for action in actions:
        features, reward, terminated, truncated, info = env.step(action)
        trace.append((features.tolist(), reward, terminated, truncated, info["exploded"]))
        if terminated or truncated:
            break
    return trace


def test_gymnasiums_checker_has_nothing_to_say():
    env = ExplodingBandit()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", message=".*not having a spec.*")
        check_env(env, skip_render_check=True)


def test_one_seed_is_one_episode():
    actions = np.random.default_rng(0).integers(10, size=25)
    first = play(gymnasium.make(ID), 7, actions)
    assert first == play(gymnasium.make(ID), 7, actions)
    assert first != play(gymnasium.make(ID), 8, actions)


def test_a_problem_is_uniform_over_the_lattice():
    env = ExplodingBandit(arms=4, dim=3, levels=3)
    env.reset(seed=0)
    draws = []
    for _ in range(2_000):
        features, _ = env.reset()
        draws.append(np.concatenate([features.ravel(), env.weights]))
    values, counts = np.unique(np.array(draws), return_counts=True)
    assert values.tolist() == [0, 1, 2]
    # 30,000 draws of probability 1/3 have a standard deviation of 82.
    assert np.abs(counts - 10_000).max() < 5 * 82


def test_rewards_are_normal_around_the_arms_mean():
    env = ExplodingBandit(sigma=2.0, threshold=1e9)
    env.reset(seed=3)
    arm = int(np.argmax(env.features @ env.weights))
    rewards = np.array([env.step(arm)[1] for _ in range(4_000)])
    mean = env.features[arm] @ env.weights
    assert abs(rewards.mean() - mean) < 5 * 2.0 / np.sqrt(4_000)
    assert abs(rewards.std() - 2.0) < 5 * 2.0 / np.sqrt(8_000)


def test_it_explodes_above_the_threshold_and_only_then():
    env = ExplodingBandit()
    env.reset(seed=1)
    outcomes = [env.step(arm % 10)[1:] for arm in range(500)]
    assert all((reward > 4.0) == terminated == info["exploded"] for reward, terminated, _, info in outcomes)
    assert {terminated for _, terminated, _, _ in outcomes} == {True, False}
    assert not any(truncated for _, _, truncated, _ in outcomes)


def test_true_harm_is_the_frequency_of_explosions():
    env = ExplodingBandit(arms=3)
    env.reset(seed=5)
    for arm, harm in enumerate(env.harm()):
        frequency = np.mean([env.step(arm)[4]["exploded"] for _ in range(4_000)])
        assert abs(frequency - harm) < 5 * np.sqrt(max(harm * (1 - harm), 1e-4) / 4_000)


def test_true_harm_of_a_mean_at_the_threshold_is_one_half():
    env = ExplodingBandit(arms=1, dim=1, threshold=1.0)
    env.features[:], env.weights[:] = 1, 1
    assert env.harm().tolist() == [0.5]


def test_episodes_are_truncated_after_25_steps():
    env = gymnasium.make(ID, threshold=1e9)
    trace = play(env, 0, [0] * 100)
    assert len(trace) == 26
    assert trace[-1][2:4] == (False, True)


def test_observations_are_copies():
    env = ExplodingBandit()
    features, _ = env.reset(seed=0)
    features[:] = -1
    assert env.features.min() >= 0


@pytest.mark.parametrize(
    "wrong",
    [{"arms": 0}, {"dim": 0}, {"levels": 1}, {"sigma": 0.0}, {"sigma": float("nan")}, {"threshold": float("inf")}],
)
def test_impossible_parameters_are_refused(wrong):
    with pytest.raises(ValueError):
        ExplodingBandit(**wrong)


@pytest.mark.parametrize("arm", [-1, 10, 0.5])
def test_an_arm_that_is_not_there_is_refused(arm):
    env = ExplodingBandit()
    env.reset(seed=0)
    with pytest.raises(ValueError):
        env.step(arm)


def test_the_documentation_has_gymnasiums_headings():
    headings = [line.strip() for line in ExplodingBandit.__doc__.splitlines() if line.strip().startswith("## ")]
    assert headings == [
        "## Description",
        "## Action Space",
        "## Observation Space",
        "## Rewards",
        "## Starting State",
        "## Episode End",
        "## Arguments",
        "## Version History",
    ]
