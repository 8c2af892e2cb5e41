"""One program's process over time: started, asked, ended when it fails, and started again."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from guardrail.hypotheses.program_errors import ProgramError
from guardrail.programs import codec
from guardrail.programs.breaker import Breaker
from guardrail.programs.child import Child, ChildFailed

if TYPE_CHECKING:
    from guardrail.policy import Policy
    from guardrail.policy.program_schema import ProgramSpec
    from guardrail.programs.messages import Arrays

    Answer = tuple[dict[str, Any], Arrays]


class UnknownState(Exception):
    """The process does not have the state that was asked about."""

    kind = "UNKNOWN_STATE"


class Session:
    """A program's process and whatever replaces it. Hold `lock` while asking.

    Args:
        policy: a policy whose hypotheses are a program.
        clock: seconds, for the pause after repeated failures.

    Attributes:
        child: the present process.
        loaded: what the program answered when it was loaded first.
        lock: one question at a time.

    :raises ProgramError: if the program cannot be loaded, or is no hypothesis class.
    """

    def __init__(self, policy: Policy, clock: Callable[[], float]) -> None:
        assert policy.program is not None
        self._policy, self._source = policy, policy.program
        self._spec: ProgramSpec = policy.spec.hypotheses  # type: ignore[assignment]
        self._breaker = Breaker(clock)
        self._closed = False
        self._last_failure = ""
        self.lock = threading.RLock()
        self.fingerprint: str | None = None
        try:
            self.loaded = self.start()
        except ChildFailed as error:
            raise ProgramError(f"{self._source.name} {error}") from error
        self.fingerprint = self.loaded["fingerprint"]

    def close(self) -> None:
        """End the process; whatever is asked later fails."""
        with self.lock:
            self._closed = True
            self.child.kill()

    def attempt(self, run: Callable[[], Answer]) -> Answer:
        """Run something in the process, started (again) if need be.

        :raises ChildFailed: if it fails, or failed so often that it is left alone for a while.
        """
        if self._closed:
            raise ChildFailed("is closed")
        if (seconds := self._breaker.waits()) > 0:
            raise ChildFailed(
                f"failed several times in a row and is left alone for {seconds:.0f} s: {self._last_failure}"
            )
        try:
            if not self.child.alive:
                self.start()
            answer = run()
        except (ChildFailed, ProgramError, UnknownState) as error:
            self._last_failure = str(error).removeprefix(f"{self._source.name} ")
            self._breaker.failed()
            self.child.kill()
            raise ChildFailed(self._last_failure) from error
        self._breaker.succeeded()
        return answer

    def ask(self, question: Mapping[str, Any], arrays: Mapping[str, npt.NDArray[Any]], seconds: float) -> Answer:
        """Ask the process once.

        :raises UnknownState: if it does not have the state.
        :raises ChildFailed: if it or the program fails.
        """
        answer, out = self.child.ask(question, arrays, seconds)
        if answer.get("ok") is True:
            return answer, out
        if answer.get("kind") == UnknownState.kind:
            raise UnknownState
        raise ChildFailed(str(answer.get("message", "fails without saying why")).removeprefix(f"{self._source.name} "))

    def start(self) -> dict[str, Any]:
        """Start a process and load the program into it.

        :raises ChildFailed: if that fails, or the program shows other numbers than when it was first loaded.
        """
        source, limits = self._source, self._spec.limits
        self.child = Child(limits.memory_mib)
        deadline = time.monotonic() + limits.load_seconds
        # Importing the libraries is not the program's doing: its memory counts from here on.
        self.ask({"op": "hello"}, {}, limits.load_seconds)
        question = {
            "op": "load",
            "spec": self._policy.spec.model_dump_json(by_alias=True),
            "harm": codec.harm_to_dict(self._policy.harm),
            "features": [(feature.name, feature.length) for feature in self._policy.programs.features],
            "name": source.name,
            "file": source.file,
            "function": source.function,
            "digests": dict(source.digests),
        }
        files = {f"file/{name}": np.frombuffer(content, np.uint8) for name, content in source.files.items()}
        try:
            answer, _ = self.ask(question, files, max(0.1, deadline - time.monotonic()))
        except ChildFailed:
            self.child.kill()
            raise
        if self.fingerprint is not None and answer["fingerprint"] != self.fingerprint:
            self.child.kill()
            raise ChildFailed("is not a function of its seed: after a restart it gives other numbers than before")
        return answer
