"""The grid worlds: Gymnasium's environments, the shipped policies that guard them, and the walker's map."""

from __future__ import annotations

import re
from collections import deque
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, get_args

import gymnasium
import jax
import numpy as np
import numpy.typing as npt

from guardrail import Guard
from guardrail.client.integrations.gymnasium import Step
from guardrail.domain import Guarantee, IntegerHarm
from guardrail.hypotheses.finite_mdp import FiniteMdpFamily
from guardrail.policy import parse_policy
from guardrail.policy.memory_schema import FiniteMdp, MdpHypothesis
from guardrail.policy.policy import Policy
from guardrail.policy.yaml_source import read_file

Name = Literal["lake", "lake-slight", "lake-dry", "cliff", "cliff-dry"]
NAMES: tuple[Name, ...] = get_args(Name)
POLICIES = Path(__file__).resolve().parents[2] / "policies"
FALL, FALL_REWARD = 48, -100
MOVES = 4


@dataclass(frozen=True, slots=True)
class World:
    """A grid world.

    Attributes:
        environment: Gymnasium's name for it.
        options: of the environment.
        policy: the folder of the policy that guards it.
        goal: the state to reach.
    """

    environment: str
    options: tuple[tuple[str, Any], ...]
    policy: str
    goal: int

    @property
    def cliff(self) -> bool:
        """True for the cliff, where a fall is a step back to the start that costs a hundred."""
        return self.policy == "cliff-walking"

    def make(self, steps: int) -> gymnasium.Env[Any, Any]:
        """The environment; an episode is truncated after so many steps."""
        return gymnasium.make(self.environment, max_episode_steps=steps, **dict(self.options))

    def outcome(self, step: Step) -> dict[str, int]:
        """What is reported: the next state, which is 48 after a fall off the cliff."""
        return {"state": FALL if self.cliff and step.reward == FALL_REWARD else int(step.observation)}


WORLDS: dict[Name, World] = {
    "lake": World("FrozenLake-v1", (("is_slippery", True),), "frozen-lake", 15),
    "lake-slight": World("FrozenLake-v1", (("is_slippery", True), ("success_rate", 5 / 6)), "frozen-lake", 15),
    "lake-dry": World("FrozenLake-v1", (("is_slippery", False),), "frozen-lake", 15),
    "cliff": World("CliffWalking-v1", (("is_slippery", True),), "cliff-walking", 47),
    "cliff-dry": World("CliffWalking-v1", (("is_slippery", False),), "cliff-walking", 47),
}


@cache
def guard(folder: str, delta: float, threshold: float) -> Guard:
    """The shipped policy with another delta and threshold; fork it for a fresh world."""
    text = read_file(POLICIES / folder / "policy.yaml")
    for field, value in (("delta", delta), ("reject_above", threshold)):
        text, changed = re.subn(rf"\b{field}: [0-9.e-]+", f"{field}: {value!r}", text)
        if changed != 1:
            raise ValueError(f"policies/{folder}/policy.yaml gives {field} {changed} times")
    return Guard(parse_policy(text))


def promise(folder: str, delta: float, threshold: float) -> Guarantee:
    """What the bounds of `guard` promise."""
    moves = [{"action": 0}]
    (verdict,) = guard(folder, delta, threshold).check_many({"state": 0}, moves)
    return verdict.guarantee


@cache
def true_harm(name: Name) -> npt.NDArray[np.float64]:
    """float64[S, 4]: what the policy calls harm, under the environment's own transition table."""
    world = WORLDS[name]
    policy = guard(world.policy, 0.05, 0.3).policy
    given, harm = _class(policy)
    spec = given.model_copy(update={"mixture": None, "table": (MdpHypothesis(name=name, kernel=_kernel(world)),)})
    family = FiniteMdpFamily(spec, harm)
    with jax.enable_x64(True):
        return np.asarray(family.arrays["harm"]).reshape(-1, MOVES)


@cache
def way(name: Name) -> tuple[int, ...]:
    """A shortest way to the goal, a step for each state, as if no step slipped and without stepping into harm."""
    policy = guard(WORLDS[name].policy, 0.05, 0.3).policy
    given, harm = _class(policy)
    assert given.mixture is not None
    steps: Any = given.mixture.kernels[given.mixture.rest]
    distance = {WORLDS[name].goal: 0}
    waiting = deque(distance)
    while waiting:
        reached = waiting.popleft()
        for state, row in enumerate(steps):
            if reached in row and state not in distance and state not in harm.harmful:
                distance[state] = distance[reached] + 1
                waiting.append(state)
    far = len(steps)
    return tuple(int(np.argmin([distance.get(after, far) for after in row])) for row in steps)


def _class(policy: Policy) -> tuple[FiniteMdp, IntegerHarm]:
    given, harm = policy.spec.hypotheses, policy.harm
    assert isinstance(given, FiniteMdp)
    assert isinstance(harm, IntegerHarm)
    return given, harm


def _kernel(world: World) -> tuple[tuple[dict[int, float], ...], ...]:
    environment: Any = world.make(1).unwrapped
    rows = []
    for state in range(environment.observation_space.n):
        row: list[dict[int, float]] = []
        for move in range(MOVES):
            chances: dict[int, float] = {}
            for mass, after, reward, _ in environment.P[state][move]:
                reached = FALL if world.cliff and reward == FALL_REWARD else int(after)
                if mass > 0.0:
                    chances[reached] = chances.get(reached, 0.0) + float(mass)
            row.append(chances)
        rows.append(tuple(row))
    return (*rows, *([tuple({FALL: 1.0} for _ in range(MOVES))] if world.cliff else []))
