"""A Gymnasium environment whose every step is checked first: `GuardrailWrapper`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, SupportsFloat, TypeAlias

from guardrail.client.results import Report, new_observation_id
from guardrail.client.sync import Client
from guardrail.domain import JsonObject, JsonValue, Verdict
from guardrail.errors import MissingExtra, NoVerdict

try:
    import gymnasium
except ImportError as error:
    raise MissingExtra("GuardrailWrapper", "sim") from error

Info: TypeAlias = dict[str, Any]


class Checker(Protocol):
    """What judges actions and takes up outcomes: a `guardrail.Guard`, or a `ServiceChecker`."""

    def check_many(self, context: JsonObject, actions: Sequence[JsonObject]) -> Sequence[Verdict]:
        """Decide about several actions in one context, against one posterior.

        :raises NoVerdict: if there is no verdict, for whatever reason.
        """
        ...

    def observe(self, context: JsonObject, action: JsonObject, outcome: JsonValue) -> None:
        """Take up the outcome of an action that was carried out."""
        ...


class ServiceChecker:
    """A client bound to one policy and one world of a service.

    An outcome whose report failed and is given again is counted once. If another one is given instead, the failed
    one is reported first: no outcome is left out.

    Args:
        client: asks the service.
        policy: name of the policy.
        world: id of the world.
    """

    def __init__(self, client: Client, *, policy: str, world: str) -> None:
        self._client, self._policy, self._world = client, policy, world
        self._unsent: Report | None = None

    def check_many(self, context: JsonObject, actions: Sequence[JsonObject]) -> Sequence[Verdict]:
        """One `CheckActions` call.

        :raises NoVerdict: if there is no verdict, for whatever reason.
        """
        found = self._client.check_many(policy=self._policy, world=self._world, context=context, actions=actions)
        return found.verdicts

    def observe(self, context: JsonObject, action: JsonObject, outcome: JsonValue) -> None:
        """Report an outcome; when this returns it is durable.

        :raises GuardrailError: if the report failed; give the same outcome again.
        """
        unsent = self._unsent
        if unsent is not None:
            self._send(unsent)
            if (unsent.context, unsent.action, unsent.outcome) == (context, action, outcome):
                return
        self._send(Report(context, action, outcome, new_observation_id()))

    def _send(self, sent: Report) -> None:
        self._unsent = sent
        self._client.report(
            policy=self._policy,
            world=self._world,
            context=sent.context,
            action=sent.action,
            outcome=sent.outcome,
            observation_id=sent.observation_id,
        )
        self._unsent = None


@dataclass(frozen=True, slots=True)
class Step:
    """What the environment said to one action: the values that its `step` returned."""

    observation: Any
    reward: float
    terminated: bool
    truncated: bool
    info: Mapping[str, Any]


def _state(observation: Any, info: Mapping[str, Any]) -> JsonObject:
    return {"state": plain(observation)}


def _action(action: Any) -> JsonObject:
    return {"action": plain(action)}


def _next_state(step: Step) -> JsonValue:
    state: JsonValue = plain(step.observation)
    return state


class GuardrailWrapper(gymnasium.Wrapper[Any, Any, Any, Any]):
    """Checks every action before the environment sees it.

    ## Description
    `step(action)` asks about the action and all candidates in one call, against one posterior. An accepted action is
    carried out. One that is rejected or escalated is replaced by the accepted candidate with the smallest harm bound
    (the first of them, if several have it). If no candidate is accepted, the episode ends: the environment is not
    stepped, `truncated` is true, the reward is 0 and the observation is the last one. What was carried out is
    reported with its outcome before `step` returns. Without a verdict nothing is carried out.

    ## Action space, observation space, rewards
    Those of the wrapped environment.

    ## Information
    `step` adds `info["guardrail"]`, a dict of plain values: `proposed` and `carried_out` (None if nothing was) are
    actions, `replaced` and `ended` are true or false, `decision` and `reasons` (stable codes) are those of the
    proposed action, and `harm_bound` is the bound of the action that was carried out, or of the proposed one if
    none was.
    `wrapper.verdict` is the whole verdict on the last proposed action.

    ## Arguments
    `context`, `action` and `outcome` translate to the policy's fields. Without them the context is `{"state":
    observation}`, the action is `{"action": action}`, and the outcome is the next observation.

    Example:
        >>> guard = guardrail.Guard.from_file("policies/frozen-lake/policy.yaml")
        >>> env = GuardrailWrapper(gymnasium.make("FrozenLake-v1"), guard)
        >>> observation, info = env.reset(seed=0)
        >>> observation, reward, terminated, truncated, info = env.step(2)

    Not safe to use from several threads; several environments may share a checker, and with it a world, if each is
    stepped from its own thread.

    Args:
        env: the environment.
        checker: judges actions and takes up outcomes.
        context: from the last observation and info to the policy's context.
        action: from an action to the policy's action.
        outcome: from what the environment said to the policy's outcome.
        candidates: actions that may replace a rejected one; by default all of a discrete action space.

    :raises ValueError: if the action space is not discrete and there are no candidates.
    """

    def __init__(
        self,
        env: gymnasium.Env[Any, Any],
        checker: Checker,
        *,
        context: Callable[[Any, Mapping[str, Any]], JsonObject] = _state,
        action: Callable[[Any], JsonObject] = _action,
        outcome: Callable[[Step], JsonValue] = _next_state,
        candidates: Iterable[Any] | None = None,
    ) -> None:
        super().__init__(env)
        self._checker = checker
        self._context_of, self._action_of, self._outcome_of = context, action, outcome
        self._candidates = _all_of(env.action_space) if candidates is None else tuple(candidates)
        self._observation: Any = None
        self._context: JsonObject | None = None
        self._unreported: tuple[JsonObject, JsonObject, Step] | None = None
        self.verdict: Verdict | None = None

    @property
    def spec(self) -> None:  # type: ignore[override]
        """None: a spec cannot hold the checker, and one without it would make an environment that nobody guards."""
        return

    def reset(self, *, seed: int | None = None, options: Info | None = None) -> tuple[Any, Info]:
        """Begin an episode. The checker's world goes on: what was learned stays.

        :raises GuardrailError: if an outcome of the last episode could not be reported, and still cannot.
        """
        self._report()
        observation, info = self.env.reset(seed=seed, options=options)
        self._arrive(observation, info)
        return observation, info

    def step(self, action: Any) -> tuple[Any, SupportsFloat, bool, bool, Info]:
        """Check an action and carry it out, or another one, or none; see the class.

        :raises NoVerdict: if there is no verdict; nothing was carried out.
        :raises GuardrailError: if the outcome could not be reported. The action was carried out; the next `step` or
            `reset` reports it first.
        :raises gymnasium.error.ResetNeeded: if there is no episode, or it is over.
        """
        self._report()
        context = self._context
        if context is None:
            raise gymnasium.error.ResetNeeded("there is no episode to go on with: call reset")
        asked = [action, *(other for other in self._candidates if plain(other) != plain(action))]
        actions = [self._action_of(one) for one in asked]
        verdicts = self._checker.check_many(context, actions)
        if len(verdicts) != len(asked):
            raise NoVerdict(f"{len(verdicts)} verdicts for {len(asked)} actions", "MALFORMED_REPLY")
        self.verdict = verdicts[0]
        chosen = _choice(verdicts)
        told = _told(asked, verdicts, chosen)
        if chosen is None:
            self._context = None
            return self._observation, 0.0, False, True, {"guardrail": told}

        # Until the outcome is known there is no context for another check.
        self._context = None
        observation, reward, terminated, truncated, info = self.env.step(asked[chosen])
        step = Step(observation, float(reward), bool(terminated), bool(truncated), info)
        self._unreported = (context, actions[chosen], step)
        if terminated or truncated:
            self._observation = observation
        else:
            self._arrive(observation, info)
        try:
            self._report()
        except Exception as error:
            error.add_note("The action was carried out; the next step or reset reports its outcome first.")
            raise
        return observation, reward, terminated, truncated, {**info, "guardrail": told}

    def _arrive(self, observation: Any, info: Mapping[str, Any]) -> None:
        self._observation, self._context = observation, self._context_of(observation, info)

    def _report(self) -> None:
        if self._unreported is not None:
            context, action, step = self._unreported
            self._checker.observe(context, action, self._outcome_of(step))
            self._unreported = None


def plain(value: Any) -> Any:
    """NumPy scalars and arrays as plain Python numbers and lists; anything else as it is."""
    return value.tolist() if hasattr(value, "tolist") else value


def _all_of(space: Any) -> tuple[Any, ...]:
    if not isinstance(space, gymnasium.spaces.Discrete):
        raise ValueError(f"the action space {space} cannot be listed: give candidates=, or candidates=() for none")
    return tuple(range(int(space.start), int(space.start + space.n)))


def _choice(verdicts: Sequence[Verdict]) -> int | None:
    """The place of the action to carry out: the proposed one, else the safest that is accepted."""
    if verdicts[0].accepted:
        return 0
    accepted = [place for place, verdict in enumerate(verdicts) if verdict.accepted]
    return min(accepted, key=lambda place: verdicts[place].harm_bound, default=None)


def _told(asked: Sequence[Any], verdicts: Sequence[Verdict], chosen: int | None) -> Info:
    return {
        "proposed": plain(asked[0]),
        "carried_out": None if chosen is None else plain(asked[chosen]),
        "replaced": chosen is not None and chosen > 0,
        "ended": chosen is None,
        "decision": verdicts[0].decision.value,
        "reasons": [reason.code.value for reason in verdicts[0].reasons],
        "harm_bound": verdicts[chosen or 0].harm_bound,
    }
