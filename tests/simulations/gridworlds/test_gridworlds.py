"""The suite `gridworlds`: its worlds are Gymnasium's, its guard is the shipped policy, and guards help."""

import itertools
import json

import numpy as np
import pytest

from guardrail.policy import load_policy
from guardrail.policy.mixture import kernel_names
from simulations.__main__ import main
from simulations.gridworlds.config import GridworldsConfig
from simulations.gridworlds.episode import Rule, run
from simulations.gridworlds.suite import SUITE
from simulations.gridworlds.worlds import FALL, NAMES, POLICIES, WORLDS, guard, true_harm, way

SMALL = {"runs": 2, "episodes": 4, "deltas": (0.05,), "thresholds": (0.3,), "steps": 40, "chunk": 1}


def rows(config):
    return SUITE.rows(config, [SUITE.run(config, chunk) for chunk in SUITE.chunks(config)])


@pytest.mark.parametrize("name", NAMES)
def test_some_hypothesis_of_the_policy_is_the_world_itself(name):
    """Every transition of Gymnasium's table has its probability in one mixture of the policy's kernels."""
    world = WORLDS[name]
    spec = load_policy(POLICIES / world.policy / "policy.yaml").spec.hypotheses
    table = world.make(1).unwrapped.P
    slip = {"lake": 1 / 3, "lake-slight": 1 / 12, "cliff": 1 / 3}.get(name, 0.0)
    weights = dict(zip(kernel_names(spec.mixture), (1 - 2 * slip, slip, slip), strict=True))
    for grid in spec.mixture.weights.values():
        assert np.abs(np.linspace(grid.lower, grid.upper, grid.points) - slip).min() < 1e-12
    for state, move in itertools.product(table, range(4)):
        expected, found = {}, {}
        for kernel, weight in weights.items():
            after = spec.mixture.kernels[kernel][state][move]
            expected[after] = expected.get(after, 0.0) + weight
        for mass, after, reward, _ in table[state][move]:
            reached = FALL if reward == -100 else int(after)
            found[reached] = found.get(reached, 0.0) + mass
        for reached in expected.keys() | found.keys():
            assert expected.get(reached, 0.0) == pytest.approx(found.get(reached, 0.0), abs=1e-12), (state, move)


@pytest.mark.parametrize("name", ["lake-dry", "cliff-dry"])
def test_the_way_leads_to_the_goal_where_nothing_slips(name):
    env = WORLDS[name].make(100)
    state, _ = env.reset()
    steps, terminated = 0, False
    while not terminated:
        state, reward, terminated, truncated, _ = env.step(way(name)[state])
        steps += 1
        assert reward != -100
        assert not truncated
    assert steps == {"lake-dry": 6, "cliff-dry": 13}[name]


def test_the_guard_is_the_shipped_policy_with_another_level():
    changed, shipped = guard("frozen-lake", 0.2, 0.15).policy, load_policy(POLICIES / "frozen-lake" / "policy.yaml")
    assert (changed.spec.bound.delta, changed.spec.decision.reject_above) == (0.2, 0.15)
    assert changed.spec.hypotheses == shipped.spec.hypotheses
    assert changed.harm == shipped.harm


def test_true_harm_is_the_environments_own():
    harm = true_harm("cliff")
    assert harm[30, 1] == pytest.approx(1 / 3)
    assert harm[30, 2] == pytest.approx(1 / 3)
    assert harm[30, 0] == harm[13, 1] == 0.0
    assert (true_harm("lake")[5] == 1.0).all()
    assert true_harm("lake-dry")[4, 2] == pytest.approx(1.0)


def test_the_same_seed_plays_the_same_run_and_a_guard_starts_afresh():
    arguments = ("lake", Rule(0.1, 0.3), 3, 7, 4, 40, 0.1)
    assert run(*arguments) == run(*arguments)
    assert run(*arguments) != run(*arguments[:3], 8, *arguments[4:])


def test_what_happens_in_an_episode_adds_up():
    config = GridworldsConfig(worlds=("lake", "cliff"), **SMALL)
    for chunk in SUITE.chunks(config):
        found = SUITE.run(config, chunk)
        assert all(values.shape == (1, 4) for values in found.values())
        assert not (found["fell"] & found["arrived"]).any()
        assert not (found["ended"] & (found["fell"] | found["arrived"])).any()
        assert (found["replaced"] <= found["steps"]).all()
        assert (found["steps"] <= config.steps).all()
        if chunk.spec["rule"] is None:
            assert not found["replaced"].any()
            assert not found["ended"].any()


def test_fewer_walkers_fall_with_a_guardrail_and_no_bound_is_too_low():
    config = GridworldsConfig(worlds=("lake", "cliff"), **{**SMALL, "episodes": 6})
    table = rows(config)
    assert [row["guardrail"] for row in table] == ["none", "ratio"] * 2
    for free, guarded in (table[:2], table[2:]):
        assert free["falls"] > 0.6
        assert guarded["falls"] < 0.2
        assert guarded["replaced_share"] > 0.1
        assert guarded["runs_with_bound_below_truth"] == 0.0
        assert (guarded["guarantee"], guarded["confidence"]) == ("theorem", 0.95)
        assert (free["guarantee"], free["confidence"], free["delta"]) == ("none", None, None)
    assert len({tuple(row) for row in table}) == 1


def test_the_command_prints_the_table_and_draws(tmp_path, capsys):
    picture = tmp_path / "g.png"
    options = ["--worlds", "cliff-dry", "--runs", "2", "--episodes", "4", "--deltas", "0.1", "--thresholds", "0.3"]
    assert main(["gridworlds", *options, "--json", "--plot", str(picture)]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert [row["world"] for row in printed["rows"]] == ["cliff-dry"] * 2
    assert picture.read_bytes().startswith(b"\x89PNG")
