"""The guarded environment: what is carried out, what is reported, and Gymnasium's own conventions."""

import subprocess
import sys
import warnings
from pathlib import Path

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from guardrail import Decision, Guarantee, GuaranteeKind, Guard, NoVerdict, Reason, ReasonCode, ServiceError, Verdict
from guardrail.client.integrations.gymnasium import GuardrailWrapper, ServiceChecker, Step
from guardrail.client.results import CheckedActions, Reported
from guardrail.client.sync import Client

ROOT = Path(__file__).resolve().parents[3]
LAKE = ROOT / "policies" / "frozen-lake" / "policy.yaml"
NOTHING = Guarantee(GuaranteeKind.NONE, 0.0, (), "")


def verdict(decision, bound):
    code = ReasonCode.WITHIN_THRESHOLD if decision == "accept" else ReasonCode.HARM_BOUND_ABOVE_REJECT
    reasons = (Reason(code, "why"),)
    return Verdict(Decision(decision), bound, 0.2, None, None, None, NOTHING, reasons, "p", "r", "w", 0, "d")


class Scripted:
    """A checker that says what a test tells it: action -> (decision, bound), or an error."""

    def __init__(self, says):
        self.says, self.asked, self.seen = says, [], []

    def check_many(self, context, actions):
        self.asked.append((context, [action["action"] for action in actions]))
        if isinstance(self.says, Exception):
            raise self.says
        return [verdict(*self.says[action["action"]]) for action in actions]

    def observe(self, context, action, outcome):
        self.seen.append((context, action, outcome))


class Corridor(gymnasium.Env):
    """Five places in a row; 0: to the left, 1: to the right, 2: stay. The right end is the goal."""

    observation_space = gymnasium.spaces.Discrete(5)
    action_space = gymnasium.spaces.Discrete(3)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.at, self.steps = 2, []
        return np.int64(2), {"fresh": True}

    def step(self, action):
        self.steps.append(action)
        self.at = min(max(self.at + (-1, 1, 0)[action], 0), 4)
        return np.int64(self.at), float(self.at == 4), self.at == 4, False, {"fresh": False}


def corridor(says, **options):
    checker = Scripted(says)
    env = GuardrailWrapper(Corridor(), checker, **options)
    env.reset(seed=0)
    return env, checker


ACCEPTED = {0: ("accept", 0.1), 1: ("accept", 0.05), 2: ("accept", 0.0)}


def test_an_accepted_action_is_carried_out_even_if_another_is_safer():
    env, checker = corridor(ACCEPTED)
    observation, reward, terminated, truncated, info = env.step(np.int64(1))
    assert (observation, reward, terminated, truncated) == (3, 0.0, False, False)
    assert env.unwrapped.steps == [1]
    assert checker.asked == [({"state": 2}, [1, 0, 2])]
    assert checker.seen == [({"state": 2}, {"action": 1}, 3)]
    assert info["fresh"] is False
    assert info["guardrail"] == {
        "proposed": 1,
        "carried_out": 1,
        "replaced": False,
        "ended": False,
        "decision": "accept",
        "reasons": ["WITHIN_THRESHOLD"],
        "harm_bound": 0.05,
    }
    assert type(info["guardrail"]["proposed"]) is int


@pytest.mark.parametrize("decision", ["reject", "escalate"])
def test_any_other_action_is_replaced_by_the_safest_accepted_one(decision):
    env, checker = corridor({0: ("accept", 0.1), 1: (decision, 0.01), 2: ("accept", 0.05)})
    observation, _, _, _, info = env.step(1)
    assert observation == 2
    assert env.unwrapped.steps == [2]
    assert checker.seen == [({"state": 2}, {"action": 2}, 2)]
    assert info["guardrail"] | {"reasons": []} == {
        "proposed": 1,
        "carried_out": 2,
        "replaced": True,
        "ended": False,
        "decision": decision,
        "reasons": [],
        "harm_bound": 0.05,
    }
    assert env.verdict.decision == decision


def test_without_an_accepted_candidate_the_episode_ends_and_nothing_is_carried_out():
    env, checker = corridor(dict.fromkeys(range(3), ("reject", 0.9)))
    observation, reward, terminated, truncated, info = env.step(1)
    assert (observation, reward, terminated, truncated) == (2, 0.0, False, True)
    assert env.unwrapped.steps == checker.seen == []
    assert info["guardrail"]["ended"] is True
    assert info["guardrail"]["carried_out"] is None
    with pytest.raises(gymnasium.error.ResetNeeded):
        env.step(1)
    assert len(checker.asked) == 1
    env.reset()
    env.step(1)
    assert len(checker.asked) == 2


def test_only_the_given_candidates_replace():
    env, checker = corridor({0: ("accept", 0.0), 1: ("reject", 0.9), 2: ("accept", 0.1)}, candidates=(2,))
    assert env.step(1)[4]["guardrail"]["carried_out"] == 2
    assert checker.asked[0][1] == [1, 2]
    env, _ = corridor({1: ("reject", 0.9)}, candidates=())
    assert env.step(1)[4]["guardrail"]["ended"] is True


@pytest.mark.parametrize("error", [NoVerdict("unreachable", "UNREACHABLE"), RuntimeError("broken")])
def test_without_a_verdict_nothing_is_carried_out(error):
    env, checker = corridor(error)
    for _ in range(2):
        with pytest.raises(type(error)):
            env.step(1)
    assert env.unwrapped.steps == checker.seen == []
    checker.says = ACCEPTED
    assert env.step(1)[0] == 3


def test_too_few_verdicts_are_no_verdict():
    env, checker = corridor(ACCEPTED)
    checker.check_many = lambda context, actions: [verdict("accept", 0.0)]
    with pytest.raises(NoVerdict):
        env.step(1)
    assert env.unwrapped.steps == []


def test_what_cannot_be_reported_is_reported_before_anything_else():
    env, checker = corridor(ACCEPTED)
    working, checker.observe = checker.observe, lambda *event: (_ for _ in ()).throw(ServiceError("no", "X", "Y"))
    with pytest.raises(ServiceError) as caught:
        env.step(1)
    assert "carried out" in caught.value.__notes__[0]
    for call in (lambda: env.step(1), env.reset):
        with pytest.raises(ServiceError):
            call()
    assert env.unwrapped.steps == [1]
    checker.observe = working
    env.step(0)
    assert checker.seen == [({"state": 2}, {"action": 1}, 3), ({"state": 3}, {"action": 0}, 2)]


def test_the_outcome_of_the_last_step_is_reported_and_the_next_episode_starts_afresh():
    env, checker = corridor(ACCEPTED)
    env.step(1)
    assert env.step(1)[2] is True
    assert checker.seen[-1] == ({"state": 3}, {"action": 1}, 4)
    with pytest.raises(gymnasium.error.ResetNeeded):
        env.step(1)
    env.reset()
    env.step(1)
    assert checker.asked[-1][0] == {"state": 2}


def test_before_the_first_reset_there_is_no_step():
    env = GuardrailWrapper(Corridor(), Scripted(ACCEPTED))
    with pytest.raises(gymnasium.error.ResetNeeded):
        env.step(1)


def test_context_action_and_outcome_are_the_callers():
    seen = []

    def outcome(step):
        seen.append(step)
        return {"reached": int(step.observation) * 10}

    checker = Scripted(ACCEPTED)
    env = GuardrailWrapper(
        Corridor(),
        checker,
        context=lambda observation, info: {"x": float(observation), "fresh": info["fresh"]},
        action=lambda action: {"action": int(action), "how": "fast"},
        outcome=outcome,
    )
    env.reset()
    env.step(1)
    assert checker.asked == [({"x": 2.0, "fresh": True}, [1, 0, 2])]
    assert checker.seen == [({"x": 2.0, "fresh": True}, {"action": 1, "how": "fast"}, {"reached": 30})]
    assert seen == [Step(3, 0.0, False, False, {"fresh": False})]


def test_a_space_that_cannot_be_listed_needs_candidates():
    env = Corridor()
    env.action_space = gymnasium.spaces.Box(-1.0, 1.0)
    with pytest.raises(ValueError, match="give candidates="):
        GuardrailWrapper(env, Scripted(ACCEPTED))


# ---------------------------------------------------------------- with real guards and clients


def test_gymnasium_finds_nothing_wrong():
    env = GuardrailWrapper(gymnasium.make("FrozenLake-v1"), Guard.from_file(LAKE))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*different from the unwrapped version.*")
        check_env(env, skip_render_check=True)


def test_on_the_lake_no_step_is_taken_whose_bound_is_above_the_threshold():
    guard = Guard.from_file(LAKE)
    env = GuardrailWrapper(gymnasium.make("FrozenLake-v1"), guard)
    env.reset(seed=1)
    env.action_space.seed(2)
    steps = replaced = ended = 0
    for _ in range(300):
        _, _, terminated, truncated, info = env.step(env.action_space.sample())
        told = info["guardrail"]
        replaced, ended = replaced + told["replaced"], ended + told["ended"]
        if not told["ended"]:
            steps += 1
            assert told["harm_bound"] <= 0.3
        else:
            assert told["harm_bound"] > 0.3
        if terminated or truncated:
            env.reset()
    assert guard.revision == steps
    assert replaced > 20
    assert ended > 0


class FakeClient(Client):
    """Answers from a list; keeps what was asked and reported."""

    def __init__(self):
        self.asked, self.reports, self.fail, self.lose = [], {}, False, False

    def check_many(self, **asked):
        self.asked.append(asked)
        return CheckedActions(tuple(verdict("accept", 0.1) for _ in asked["actions"]), (0,))

    def report(self, **report):
        if self.lose:
            raise ServiceError("not sent", "UNREACHABLE", "UNAVAILABLE")
        self.reports.setdefault(report.pop("observation_id"), report)
        if self.fail:
            raise ServiceError("late", "DEADLINE_EXCEEDED", "DEADLINE_EXCEEDED")
        return Reported("id", 1, False)


def test_a_service_is_asked_once_a_step_and_an_outcome_counts_once():
    client = FakeClient()
    env = GuardrailWrapper(Corridor(), ServiceChecker(client, policy="p", world="w"))
    env.reset()
    client.fail = True
    with pytest.raises(ServiceError):
        env.step(1)
    client.fail = False
    env.step(2)
    env.step(2)
    assert [asked["context"] for asked in client.asked] == [{"state": 2}, {"state": 3}, {"state": 3}]
    assert {(asked["policy"], asked["world"]) for asked in client.asked} == {("p", "w")}
    # The retry has the id of the first try; two equal steps are two observations.
    assert [(r["context"], r["action"], r["outcome"]) for r in client.reports.values()] == [
        ({"state": 2}, {"action": 1}, 3),
        ({"state": 3}, {"action": 2}, 3),
        ({"state": 3}, {"action": 2}, 3),
    ]


def test_an_outcome_whose_report_failed_is_reported_before_another_one():
    client = FakeClient()
    checker = ServiceChecker(client, policy="p", world="w")
    client.lose = True
    for _ in range(2):
        with pytest.raises(ServiceError):
            checker.observe({"state": 1}, {"action": 1}, 5)
    client.lose = False
    checker.observe({"state": 1}, {"action": 2}, 3)
    assert [(r["action"], r["outcome"]) for r in client.reports.values()] == [({"action": 1}, 5), ({"action": 2}, 3)]


def test_without_gymnasium_the_message_says_what_to_install():
    code = (
        "import sys; sys.modules['gymnasium'] = None\n"
        "try:\n    import guardrail.client.integrations.gymnasium\n"
        "except ImportError as error:\n    print(error.reason, error)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("MISSING_EXTRA GuardrailWrapper needs the 'sim' extra")
