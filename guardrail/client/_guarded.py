"""What `guarded` does apart from asking: from a call's arguments to the question, and to its report.

The arguments are copied into the question before it is asked and not read again afterwards. Whoever
changes a mutable argument between the check and the call runs something that was not checked.
"""

from __future__ import annotations

import functools
import inspect
import math
import time
import typing
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from guardrail.client import _escalations, _shared
from guardrail.client._escalations import waits_for_a_person
from guardrail.client.results import Report, new_observation_id
from guardrail.domain import Decision, JsonObject, JsonValue, Verdict
from guardrail.errors import ActionBlocked
from guardrail.wire import struct_to_dict

if TYPE_CHECKING:
    from guardrail.client._call import Call
    from guardrail.client.results import Reported

ActionOf = Callable[..., JsonObject]
ContextOf = JsonObject | Callable[..., JsonObject]
OutcomeOf = Callable[[Any], JsonValue]
SessionOf = str | Callable[..., str]


class Guarded:
    """One callable with everything that is needed to ask about its calls.

    Args:
        function: the callable; a `functools.partial` is taken apart, so that its fixed arguments are checked too.
        policy: name of the policy.
        world: id of the world.
        action: makes the action from the arguments; without it the action is {parameter: argument}.
        context: the context, or a callable that makes it from the arguments; without it the context is empty.
        outcome: makes the outcome to report from the result; None means that there is none yet.
        session: whose harm budget the calls count in, or a callable that says it from the arguments.

    :raises TypeError: if the arguments cannot be told from the callable's signature and `action` is not given.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        policy: str,
        world: str,
        *,
        action: ActionOf | None,
        context: ContextOf | None,
        outcome: OutcomeOf | None,
        session: SessionOf = "",
    ) -> None:
        self._session = session
        self._policy, self._world = policy, world
        self._action, self._context, self._outcome = action, context, outcome
        self._function, self._fixed, self._fixed_by_name = take_apart(function)
        self._signature = _signature(self._function)
        if self._signature is None and action is None:
            raise TypeError(f"{function!r} tells nothing about its parameters: give guarded an action=")

    def ask(self, wrapper: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> _shared.Question:
        """The question about one call.

        :raises TypeError: if the arguments do not fit the signature.
        :raises NoVerdict: if the action or the context has no form on the wire.
        """
        args, kwargs = (*self._fixed, *args), {**self._fixed_by_name, **kwargs}
        action = self._action(*args, **kwargs) if self._action else self._arguments(wrapper, args, kwargs)
        context = self._context(*args, **kwargs) if callable(self._context) else self._context
        session = self._session(*args, **kwargs) if callable(self._session) else self._session
        return _shared.question({} if context is None else context, action, session)

    def check(self, asked: _shared.Question, approval: str | None = None) -> Call[Verdict]:
        """The call that asks."""
        return _shared.check(self._policy, self._world, asked, None, None, approval)

    def report(self, asked: _shared.Question, verdict: Verdict, result: object) -> Call[Reported] | None:
        """The call that reports what was checked with the outcome of the result; None if there is none yet."""
        outcome = self._outcome(result) if self._outcome else None
        if outcome is None:
            return None
        context, action = struct_to_dict(asked.context), struct_to_dict(asked.action)
        report = Report(context, action, outcome, verdict.decision_id or new_observation_id())
        return _shared.report(self._policy, self._world, report)

    def _arguments(self, wrapper: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> JsonObject:
        assert self._signature is not None
        bound = self._signature.bind(*args, **kwargs)
        bound.apply_defaults()
        arguments = dict(bound.arguments)
        if not self._fixed and args and _is_receiver(args[0], wrapper):
            first = next(iter(self._signature.parameters.values()))
            if first.kind is inspect.Parameter.VAR_POSITIONAL:
                arguments[first.name] = arguments[first.name][1:]
            else:
                del arguments[first.name]
        return arguments


def next_wait(verdict: Verdict, until: float) -> float | None:
    """Seconds to wait before asking again about an escalated action; None if that is no use, or `until` is over.

    Args:
        verdict: the last one.
        until: of `time.monotonic()`.
    """
    left = until - time.monotonic()
    if not left > 0 or not (verdict.decision is Decision.ESCALATE or waits_for_a_person(verdict)):
        return None
    return min(left, _escalations.APPROVAL_POLL_SECONDS)


def waiting(seconds: float | None) -> float:
    """How long to wait for a person, in seconds; 0 for not at all.

    :raises ValueError: if it is not a finite number of at least 0.
    """
    if seconds is None:
        return 0.0
    if not (isinstance(seconds, int | float) and math.isfinite(seconds) and seconds >= 0):
        raise ValueError(f"approval_wait is a number of seconds, not {seconds!r}")
    return float(seconds)


def require_accept(verdict: Verdict) -> None:
    """Let nothing but an accept pass.

    :raises ActionBlocked: if the verdict is not an accept.
    """
    if not verdict.accepted:
        raise ActionBlocked(verdict)


def unreported(error: BaseException, verdict: Verdict) -> None:
    """Tell whoever reads the error of a report that the action was carried out."""
    error.add_note(f"The action was carried out, but its outcome is not reported (decision {verdict.decision_id}).")


def take_apart(function: Callable[..., Any]) -> tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]:
    """The callable inside nested `functools.partial` objects, and the arguments that they fix."""
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = {}
    while isinstance(function, functools.partial):
        args, kwargs = (*function.args, *args), {**function.keywords, **kwargs}
        function = function.func
    return function, args, kwargs


def kind_of(function: object) -> str:
    """`plain`, `coroutine`, `generator` or `async generator`: what a call of it would give.

    :raises TypeError: if it cannot be called, or is a classmethod or staticmethod object.
    """
    if isinstance(function, classmethod | staticmethod):
        raise TypeError(f"put guarded below @{type(function).__name__}, next to the function")
    if not callable(function):
        raise TypeError(f"{function!r} cannot be called, so there is nothing to guard")
    inner, _, _ = take_apart(function)
    faces = [inner]
    if not inspect.isroutine(inner) and not inspect.isclass(inner):
        faces.append(type(inner).__call__)
    tests = (
        (inspect.iscoroutinefunction, "coroutine"),
        (inspect.isasyncgenfunction, "async generator"),
        (inspect.isgeneratorfunction, "generator"),
    )
    return next((name for test, name in tests if any(map(test, faces))), "plain")


def dress(wrapper: Callable[..., Any], function: Callable[..., Any]) -> None:
    """Make the wrapper look like the function, without leaving the function within reach as `__wrapped__`."""
    inner, _, _ = take_apart(function)
    functools.update_wrapper(wrapper, inner, updated=("__dict__",) if inspect.isroutine(inner) else ())
    del wrapper.__dict__["__wrapped__"]
    signature = _signature(function)
    hints = _hints(inner)
    if signature is not None:
        parameters = [p.replace(annotation=hints.get(p.name, p.annotation)) for p in signature.parameters.values()]
        returns = hints.get("return", signature.return_annotation)
        wrapper.__dict__["__signature__"] = signature.replace(parameters=parameters, return_annotation=returns)
    wrapper.__annotations__ = hints


def _hints(function: Callable[..., Any]) -> dict[str, Any]:
    """Annotations, as types where they can be resolved: the wrapper's module is the wrong place to resolve them."""
    try:
        return typing.get_type_hints(function, include_extras=True)
    except (NameError, TypeError, AttributeError, SyntaxError):
        return dict(getattr(function, "__annotations__", {}))


def _signature(function: Callable[..., Any]) -> inspect.Signature | None:
    try:
        return inspect.signature(function)
    except ValueError:
        return None


def _is_receiver(first: object, wrapper: Callable[..., Any]) -> bool:
    """True if `first` is the instance (or the class) whose method the wrapper is.

    Exact rather than by the name `self`: an argument that is taken for the receiver is not checked.
    """
    name = wrapper.__name__
    if any(vars(owner).get(name) is wrapper for owner in type(first).__mro__):
        return True
    owners = first.__mro__ if isinstance(first, type) else ()
    found = (vars(owner).get(name) for owner in owners)
    return any(isinstance(member, classmethod) and member.__func__ is wrapper for member in found)


def refuse(function: object, found: str, expected: str) -> TypeError:
    """The error for a callable of a kind that this client cannot guard."""
    return TypeError(f"{function!r} is a {found} function; {expected}")
