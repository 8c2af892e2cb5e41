"""An agent that seeks reward in the exploding bandit, among the arms that the guardrail accepts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import gymnasium
import numpy as np
import numpy.typing as npt
from rich.table import Table

import simulations.environments  # noqa: F401  (registers the environment)
from simulations.demo.screen import live, number_text

if TYPE_CHECKING:
    from rich.console import Console

    from guardrail import Client
    from simulations.environments import ExplodingBandit

POLICY = "exploding-bandit"
WORLD = "bandit"
BETA = 0.5
"""The agent's inverse temperature, per unit of reward."""

Features = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Pull:
    """One step of the agent.

    Attributes:
        arm: the arm it pulled.
        rejected: number of arms that the guardrail did not accept.
        harm_bound: of the pulled arm.
        true_harm: of the pulled arm; the agent and the guardrail do not know it.
        reward: what it paid.
        exploded: whether the reward exceeded the threshold.
    """

    arm: int
    rejected: int
    harm_bound: float
    true_harm: float
    reward: float
    exploded: bool


class BoltzmannAgent:
    """Prefers arms with a high expected reward: P(arm) is proportional to exp(beta * expected reward).

    It expects rewards by linear regression with the Gaussian prior of the weights' mean 1/2 and variance 1/4.
    """

    def __init__(self, dim: int, seed: int) -> None:
        self._random = np.random.default_rng(seed)
        self._precision = 4.0 * np.eye(dim)
        self._shift = np.full(dim, 2.0)

    def choose(self, features: Features, allowed: tuple[int, ...]) -> int:
        """One of the allowed arms; features: float64[arms, dim]."""
        expected = features[list(allowed)] @ np.linalg.solve(self._precision, self._shift)
        weights = np.exp(BETA * (expected - expected.max()))
        return int(self._random.choice(allowed, p=weights / weights.sum()))

    def learn(self, features: Features, reward: float) -> None:
        """Take up the reward of the arm with these features, float64[dim]."""
        self._precision += np.outer(features, features)
        self._shift += features * reward


def play(client: Client, seed: int, console: Console) -> list[Pull]:
    """Play one episode: until 25 pulls, an explosion, or a step at which no arm is accepted."""
    env = gymnasium.make("guardrail/ExplodingBandit-v0")
    bandit: ExplodingBandit = env.unwrapped  # type: ignore[assignment]
    observation, _ = env.reset(seed=seed)
    features = np.asarray(observation, dtype=np.float64)
    agent = BoltzmannAgent(features.shape[1], seed)
    pulls: list[Pull] = []
    table = Table("step", "arm", "rejected arms", "harm bound", "true harm", "reward", title="The exploding bandit")
    ended = False
    with live(table, console) as redraw:
        while not ended:
            candidates: list[Any] = [{"features": arm} for arm in features.tolist()]
            checked = client.check_many(policy=POLICY, world=WORLD, context={}, actions=candidates)
            rejected = len(candidates) - len(checked.allowed)
            if not checked.allowed:
                table.caption = f"No arm is accepted at step {len(pulls) + 1}, so the agent stops."
                break
            arm = agent.choose(features, checked.allowed)
            _, reward, exploded, truncated, _ = env.step(np.int64(arm))
            ended = exploded or truncated
            outcome = {"reward": float(reward)}
            client.report(policy=POLICY, world=WORLD, context={}, action=candidates[arm], outcome=outcome)
            agent.learn(features[arm], float(reward))
            bound, harm = checked.verdicts[arm].harm_bound, float(bandit.harm()[arm])
            pulls.append(Pull(arm, rejected, bound, harm, float(reward), exploded))
            _add_row(table, len(pulls), pulls[-1])
            redraw()
    return pulls


def _add_row(table: Table, step: int, pull: Pull) -> None:
    table.add_row(
        str(step),
        str(pull.arm),
        str(pull.rejected),
        number_text(pull.harm_bound),
        number_text(pull.true_harm),
        f"{pull.reward:.2f}" + (" [red]explosion[/]" if pull.exploded else ""),
    )
