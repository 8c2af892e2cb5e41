from types import SimpleNamespace

import gymnasium
import jax
import numpy as np
import pytest

import simulations.environments  # noqa: F401  (registers the environment)
from simulations.environments import vectorised

SHAPES = [(10, 10, 2, 1.0, 4.0), (3, 4, 3, 0.5, 9.0)]


@pytest.mark.parametrize(("arms", "dim", "levels", "sigma", "threshold"), SHAPES)
def test_the_twin_steps_as_the_gymnasium_environment_does_on_the_same_draws(arms, dim, levels, sigma, threshold):
    env = gymnasium.make(
        "guardrail/ExplodingBandit-v0", arms=arms, dim=dim, levels=levels, sigma=sigma, threshold=threshold
    ).unwrapped
    chooser = np.random.default_rng(5)
    explosions = 0
    for seed in range(20):
        env.reset(seed=seed)
        draws = np.random.default_rng(seed)
        weights, features = draws.integers(levels, size=dim), draws.integers(levels, size=(arms, dim))
        with jax.enable_x64(True):
            problem = vectorised.Problem(jax.numpy.asarray(weights), jax.numpy.asarray(features))
            means = vectorised.means(problem)
            for arm in chooser.integers(arms, size=5):
                _, reward, exploded, _, _ = env.step(np.int64(arm))
                twin = vectorised.pull(means[arm], draws.standard_normal(), sigma, threshold)
                assert float(twin[0]) == pytest.approx(reward, rel=1e-15)
                assert bool(twin[1]) == exploded
                explosions += exploded
    assert 5 < explosions < 95


def test_problems_are_uniform_and_an_episode_depends_on_its_own_number_only():
    with jax.enable_x64(True):
        draw = jax.vmap(lambda e: vectorised.draw_problem(vectorised.episode_key(3, e), 4, 5, 3))
        many, few = (
            SimpleNamespace(weights=np.asarray(p.weights), features=np.asarray(p.features))
            for p in (draw(jax.numpy.arange(4000)), draw(jax.numpy.arange(7, 9)))
        )
    assert (many.features[7:9] == few.features).all()
    assert (many.weights[7:9] == few.weights).all()
    # 80,000 features: each share has a standard error of 0.0017; 20,000 weights: 0.0033.
    shares = np.bincount(many.features.ravel()) / many.features.size
    assert shares == pytest.approx([1 / 3] * 3, abs=0.008)
    assert np.bincount(many.weights.ravel()) / many.weights.size == pytest.approx([1 / 3] * 3, abs=0.02)


def test_the_noise_is_standard_normal_and_the_choice_gumbel():
    with jax.enable_x64(True):
        noise = jax.vmap(lambda e: vectorised.draw_noise(vectorised.episode_key(4, e), 25, 10))(jax.numpy.arange(2000))
        assert float(noise.reward.mean()) == pytest.approx(0.0, abs=0.025)
        assert float(noise.reward.std()) == pytest.approx(1.0, abs=0.02)
        assert float(noise.choice.mean()) == pytest.approx(np.euler_gamma, abs=0.01)
        assert np.corrcoef(noise.reward[:, 0], noise.choice[:, 0, 0])[0, 1] == pytest.approx(0.0, abs=0.12)


def test_the_usual_threshold_of_the_papers_bandit_is_four():
    with jax.enable_x64(True):
        assert {vectorised.usual_threshold(seed, 10, 10, 2) for seed in range(10)} == {4.0}
        # Two arms whose only feature and weight are 0 or 1: the best mean is 1 with probability 3/8.
        assert vectorised.usual_threshold(0, 2, 1, 2) == 0.0
