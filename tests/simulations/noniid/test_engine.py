import jax
import numpy as np
import pytest
import slow_bandit

from simulations.noniid import engine
from simulations.noniid.config import NoniidConfig
from simulations.noniid.guardrails import Guardrail

EPISODES, EXPLOSION = 60, 2.0
CONFIG = NoniidConfig(
    arms=4, dim=4, steps=8, sigma=0.9, seed=11, explosion_threshold=EXPLOSION, exponent=1.5, temperature=0.05
)
GUARDRAILS = [
    Guardrail("none"),
    Guardrail("cheating"),
    Guardrail("predictive"),
    Guardrail("iid"),
    *(Guardrail("plausible", 0.2, ties) for ties in ("all", "ascending", "descending", "random")),
    Guardrail("plausible", 1e-3, "all"),
    Guardrail("plausible-running", 0.1, "all"),
    Guardrail("ratio", 0.5),
    Guardrail("ratio", 0.01),
    Guardrail("ratio-running", 0.5),
    *(
        Guardrail(f"aggregate-{how}", 0.05, "all")
        for how in ("maximum", "quantile", "arithmetic", "geometric", "harmonic", "softmax", "increase")
    ),
]


def play(config, guardrail, thresholds, episodes=EPISODES):
    """Outcomes of shape [thresholds, episodes]."""
    with jax.enable_x64(True):
        player = engine.Engine(config, EXPLOSION)
        drawn = player.draw(0, episodes, orders=guardrail.ties == "random")
        levels = np.full(len(thresholds), guardrail.level or 0.0)
        outcomes = player.program(guardrail.kind, guardrail.ties).play(drawn, np.array(thresholds), levels)
        return engine.as_arrays(outcomes, len(thresholds)), jax.tree.map(np.asarray, drawn)


@pytest.mark.parametrize("guardrail", GUARDRAILS, ids=lambda g: f"{g.kind}-{g.level}-{g.ties}")
def test_episodes_are_those_of_the_slow_implementation(guardrail):
    thresholds = (0.03, 0.25)
    outcomes, drawn = play(CONFIG, guardrail, thresholds)
    for t, threshold in enumerate(thresholds):
        for e in range(EPISODES):
            expected = slow_bandit.play(
                CONFIG,
                guardrail,
                threshold,
                EXPLOSION,
                drawn.features[e],
                drawn.levels[e],
                drawn.noise[e],
                drawn.choice[e],
                drawn.order[e],
            )
            found = [outcomes[name][t, e] for name in engine.Outcomes._fields]
            assert found[0] == pytest.approx(expected[0], abs=1e-9)
            assert found[1:] == list(expected[1:])
    if guardrail.kind != "none":
        assert outcomes["rejections"].sum() > 0


def test_an_episode_does_not_depend_on_how_many_run_beside_it(monkeypatch):
    guardrail = Guardrail("plausible", 0.2, "all")
    whole, _ = play(CONFIG, guardrail, (0.03, 0.25))
    monkeypatch.setattr(engine, "LANE_NUMBERS", 5 * 16)
    narrow, _ = play(CONFIG, guardrail, (0.03, 0.25))
    few, _ = play(CONFIG, guardrail, (0.03, 0.25), episodes=17)
    for name in whole:
        assert (whole[name] == narrow[name]).all()
        assert (whole[name][:, :17] == few[name]).all()


def test_lanes_shrink_with_the_class_so_that_memory_does_not_grow():
    assert engine.lane_count(2**10) == 256
    assert engine.lane_count(2**20) == 1
    assert engine.lane_count(2) == engine.MAX_LANES


@pytest.mark.slow
def test_a_million_hypotheses_run_on_a_cpu():
    config = NoniidConfig(arms=10, dim=20, episodes=2, steps=3, seed=0, explosion_threshold=8.0)
    for guardrail in (Guardrail("ratio", 0.05), Guardrail("plausible", 1e-8, "all"), Guardrail("predictive")):
        with jax.enable_x64(True):
            player = engine.Engine(config, 8.0)
            drawn = player.draw(0, 2, orders=False)
            outcomes = player.program(guardrail.kind, guardrail.ties).play(
                drawn, np.array([0.9]), np.array([guardrail.level or 0.0])
            )
        assert outcomes.steps.shape == (2,)
