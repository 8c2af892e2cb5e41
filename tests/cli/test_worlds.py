import math
import time

import pytest

from guardrail.cli.console import text_console
from guardrail.cli.detail import print_detail
from guardrail.cli.worlds import calibration_lines
from guardrail.client.results import CalibrationState
from guardrail.domain import Hypothesis, Parameter, PosteriorDetail


@pytest.fixture(scope="module")
def told(service):
    from guardrail import Client

    with Client(service.target, timeout=20) as client:
        for world in ("red", "blue"):
            for place in range(3):
                client.report(
                    policy="coin",
                    world=f"worlds/{world}",
                    context={},
                    action={"kind": "high"},
                    outcome=False,
                    observation_id=str(place),
                )
    return service


def test_worlds_are_listed(cli, told):
    result = cli("worlds", "--target", told.target, "--json")
    assert result.code == 0
    assert list(result.json) == ["worlds"]
    ours = [w for w in result.json["worlds"] if w["world"].startswith("worlds/")]
    assert ours == [
        {"policy": "coin", "world": f"worlds/{name}", "observations": 3, "generation": 1} for name in ("blue", "red")
    ]
    text = cli("worlds", "--policy", "coin", "--target", told.target)
    assert [line.split() for line in text.out.splitlines() if "worlds/" in line] == [
        ["coin", "3", "worlds/blue"],
        ["coin", "3", "worlds/red"],
    ]


def test_no_worlds_is_no_error(cli, told):
    assert cli("worlds", "--policy", "nobody", "--target", told.target, "--json").json == {"worlds": []}
    text = cli("worlds", "--policy", "nobody", "--target", told.target)
    assert (text.code, text.out, text.err) == (0, "", "no world holds an observation\n")


def test_a_world_shows_its_posterior(cli, told):
    result = cli("worlds", "worlds/red", "--policy", "coin", "--target", told.target, "--json")
    assert list(result.json) == [
        "policy",
        "policy_revision",
        "world",
        "posterior",
        "guarantee",
        "generation",
        "awaited",
        "calibration",
    ]
    assert result.json["calibration"] is None
    posterior = result.json["posterior"]
    assert list(posterior) == ["revision", "refuted", "class_size", "plausible", "entropy", "top", "detail"]
    assert (posterior["revision"], posterior["class_size"]) == (3, 3)
    weights = {"fair": 0.5 * 0.5**3, "mild": 0.3 * 0.9**3, "wild": 0.2 * 0.1**3}
    for name, weight in weights.items():
        assert posterior["top"][name] == pytest.approx(weight / sum(weights.values()))
    text = cli("worlds", "worlds/red", "--policy", "coin", "--target", told.target).out
    for part in ("3 hypotheses", "nats", "mild", "theorem", "0.95"):
        assert part in text


def test_a_world_shows_what_came_of_its_promises(cli, told):
    from guardrail import Client

    action = {"kind": "high"}
    with Client(told.target, timeout=20) as client:
        for _ in range(2):
            verdict = client.check(policy="coin", world="worlds/told", context={}, action=action)
            client.report(
                policy="coin",
                world="worlds/told",
                context={},
                action=action,
                outcome=True,
                observation_id=verdict.decision_id,
            )
    arguments = ("worlds", "worlds/told", "--policy", "coin", "--target", told.target)
    deadline = time.monotonic() + 30
    while (found := cli(*arguments, "--json").json["calibration"]) is None or found["outcomes"] < 2:
        assert time.monotonic() < deadline
    assert (found["harms"], found["alarm"]) == (2, False)
    text = cli(*arguments).out
    for part in ("2 under decisions' ids, harm in 2", "log e-value", "alarm at 4.605", "no alarm", "by the outcomes"):
        assert part in text


def test_an_alarm_is_shown():
    found = CalibrationState(50, 25, 2.5, 8.0, 9.0, 4.6, True, None, None, None)
    lines = dict(calibration_lines(found))
    assert lines[""] == "ALARM: harm is more frequent than the bounds allow"
    assert "predicted" not in lines


def test_a_world_needs_its_policy(cli, told):
    assert cli("worlds", "worlds/red", "--target", told.target).code == 2


def test_an_unknown_world_is_an_error(cli, told):
    result = cli("worlds", "nowhere", "--policy", "coin", "--target", told.target)
    assert result.code == 3
    assert result.err.startswith("error [WORLD_NOT_FOUND]: ")


def test_a_world_is_reset_once_it_is_confirmed(cli, told):
    command = ["worlds", "reset", "coin", "worlds/blue", "--reason", "repainted", "--target", told.target]
    refused = cli(*command, input="n\n")
    assert (refused.code, refused.out.strip()) == (1, "n")  # the test's terminal shows what is typed
    assert "3 observations of world worlds/blue of policy coin (generation 1)" in refused.err
    done = cli(*command, input="y\n")
    assert done.code == 0
    assert "generation 2 starts; 3 observations are in the closed log\n" in done.out
    assert cli(*command, "--yes", "--json").json == {"generation": 3, "closed_observations": 0}
    listed = cli("worlds", "--policy", "coin", "--target", told.target).out
    assert "coin          0  worlds/blue  (generation 3)\n" in listed
    shown = cli("worlds", "show", "worlds/blue", "--policy", "coin", "--target", told.target).out
    assert "the world was reset 2 times" in shown


def test_only_what_is_there_can_be_reset(cli, told):
    command = ["worlds", "reset", "coin", "nowhere", "--reason", "why", "--yes", "--target", told.target, "--json"]
    result = cli(*command)
    assert result.code == 3
    assert '"WORLD_NOT_FOUND"' in result.err
    assert cli("worlds", "reset", "coin", "worlds/red", "--target", told.target).code == 2


# ---------------------------------------------------------------- hypotheses and outcomes


def test_a_world_tells_of_its_hypotheses(cli, told):
    arguments = ("worlds", "worlds/red", "--policy", "coin", "--target", told.target, "--hypotheses")
    found = cli(*arguments, 3, "--json").json["posterior"]["detail"]
    assert found["parameters"] == []
    weights = {"fair": 0.5 * 0.5**3, "mild": 0.3 * 0.9**3, "wild": 0.2 * 0.1**3}
    assert [one["name"] for one in found["hypotheses"]] == ["mild", "fair", "wild"]
    for one in found["hypotheses"]:
        mass = weights[one["name"]] / sum(weights.values())
        assert math.exp(one["log_posterior"]) == pytest.approx(mass)
        prior = {"fair": 0.5, "mild": 0.3, "wild": 0.2}[one["name"]]
        assert one["plausible"] is (mass >= 0.05 * prior)
    assert found["hypotheses"][0]["parameters"] == {"rate[high]": 0.1, "rate[low]": 0.01}
    assert len(cli(*arguments, 1, "--json").json["posterior"]["detail"]["hypotheses"]) == 1
    text = cli(*arguments, 3).out.splitlines()[-4:]
    assert text[0].split() == ["posterior", "hypothesis", "parameters"]
    assert text[1].split() == ["0.7772", "plausible", "mild", "rate[high]=0.1,", "rate[low]=0.01"]
    assert text[3].split()[1:4] == ["ruled", "out", "wild"]
    assert text[0].index("hypothesis") == text[1].index("mild") == text[3].index("wild")


def test_hypotheses_are_those_of_one_world(cli):
    assert cli("worlds", "--hypotheses", "3").code == 2
    assert cli("worlds", "w", "--policy", "coin", "--hypotheses", "1001").code == 2


def test_parameters_are_told_with_what_is_not_known(capsys):
    detail = PosteriorDetail(
        parameters=(
            Parameter("weight[a]", 0.5, 0.25, -math.inf, 1.0),
            Parameter("weight[bb]", -1.0, 0.125),
        )
    )
    print_detail(text_console(), detail)
    assert [line.split() for line in capsys.readouterr().out.splitlines()] == [
        ["parameter", "mean", "sd", "plausible", "from", "to"],
        ["weight[a]", "0.5", "0.25", "-inf", "1"],
        ["weight[bb]", "-1", "0.125", "?", "?"],
    ]


def test_hypotheses_of_a_bound_without_a_set_have_no_mark(capsys):
    detail = PosteriorDetail((Hypothesis("h", {"rate": 0.5}, 0.0, None),))
    print_detail(text_console(), detail)
    assert capsys.readouterr().out == "  posterior  hypothesis  parameters\n          1  h           rate=0.5\n"


def test_outcomes_are_those_that_decisions_count(cli, policy_file, tmp_path):
    from guardrail.store import open_store
    from guardrail.testing.store_contract import observation

    path = tmp_path / "log.db"
    store = open_store(path)
    for n in range(5):
        content = '{"action": {"kind": "low"}, "context": {}, "outcome": %s}' % ("true" if n == 3 else "false")
        store.append_observations([observation(f"o{n}", content, "coin", "w")])
    store.reset_world("coin", "w", 1, "because", "")
    store.append_observations([observation("\x1b[2Jnew", content, "coin", "w")])
    store.close()

    def numbers(*options):
        lines = cli("worlds", "outcomes", "coin", "w", "--store", path, *options).out.splitlines()
        return [(int(line.split()[0]), line.split()[3]) for line in lines]

    every = [(n + 1, f"o{n}") for n in range(5)]
    assert numbers() == [(1, '"\\u001b[2Jnew"')]
    assert numbers("--generation", 1) == every
    assert numbers("--generation", 1, "--until", 4) == every[:4]
    assert numbers("--generation", 1, "--until", 4, "--last", 2) == every[2:4]
    assert numbers("--generation", 1, "--last", 9) == every
    assert numbers("--generation", 1, "--until", 0) == []
    text = cli("worlds", "outcomes", "coin", "w", "--store", path, "--generation", 1, "--until", 4, "--last", 1).out
    assert text.rstrip().endswith('o3  outcome true  action {"kind": "low"}  context {}')
    one = cli("worlds", "outcomes", "coin", "w", "--store", path, "--json").json
    assert list(one) == ["number", "observation_id", "action", "context", "outcome", "recorded_at", "reporter"]
    missing = cli("worlds", "outcomes", "coin", "other", "--store", path)
    assert (missing.code, missing.err[:23]) == (3, "error [WORLD_NOT_FOUND]")
