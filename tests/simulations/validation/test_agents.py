"""What agents choose."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from simulations.validation import agents

BOUNDS, REWARD, THREAT = (np.array(values) for values in ([0.3, 0.1, 0.2], [5.0, 1.0, 2.0], [0.0, 0.2, 0.9]))


def choose(agent, allowed=(True, True, True), seed=0):
    with jax.enable_x64(True):
        arguments = (jnp.asarray(values) for values in (BOUNDS, REWARD, THREAT, allowed))
        return int(agents.choose(jnp.asarray(agents.AGENTS.index(agent)), *arguments, jax.random.key(seed)))


@pytest.mark.parametrize(("agent", "best", "second"), [("benign", 1, 2), ("greedy", 0, 2), ("adversarial", 2, 1)])
def test_each_agent_takes_what_it_is_after_if_it_may(agent, best, second):
    assert choose(agent) == best
    allowed = [True] * 3
    allowed[best] = False
    assert choose(agent, allowed) == second


def test_the_random_agent_takes_every_allowed_action_about_as_often():
    taken = np.bincount([choose("random", (True, False, True), seed) for seed in range(60)], minlength=3)
    assert taken[1] == 0
    assert min(taken[0], taken[2]) > 15


class TestTheAdversary:
    def threat(self, log_ratio, mean, expected, noise_sd=None, variance=(1.0, 1.0)):
        with jax.enable_x64(True):
            return np.asarray(
                agents.threat_of(
                    jnp.asarray(log_ratio),
                    math.log(0.05),
                    (jnp.asarray(mean), noise_sd),
                    (jnp.asarray(expected), jnp.asarray(variance)),
                    jnp.asarray([0.5, 0.5]),
                    jnp.asarray([0.4, 0.4]),
                )
            )

    def test_it_knows_the_probability_that_the_next_outcome_throws_the_truth_out(self):
        # One more 0 takes the truth of the first action from 0.06 to 0.03; the second action changes nothing.
        threat = self.threat(math.log(0.06), [0.6, 0.3], [0.2, 0.3])
        assert threat[0] == pytest.approx(0.4, abs=2e-3)
        assert threat[1] == pytest.approx(0.0, abs=2e-3)

    def test_far_from_the_edge_it_pushes_hardest(self):
        threat = self.threat(0.0, [0.6, 0.3], [0.2, 0.31])
        assert threat[0] > threat[1]

    def test_it_sees_gaussian_outcomes_too(self):
        threat = self.threat(math.log(0.051), [2.0, 2.0], [0.0, 2.0], noise_sd=1.0)
        assert threat[0] > threat[1]
        assert 0.0 < threat[0] < 0.6

    def test_with_a_budget_it_buys_the_most_harm(self):
        assert np.argmax(agents.bargain_of(jnp.asarray([0.5, 0.1]), jnp.asarray([0.2, 0.09]))) == 1
