"""What a program's process is asked, and what it keeps: the program's oracle and some of its states."""

from __future__ import annotations

import hashlib
import importlib.util
import sys
import time
from collections import OrderedDict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from guardrail.hypotheses.program_errors import ProgramError
from guardrail.hypotheses.program_inputs import ProgramInputs
from guardrail.policy.schema import PolicySpec
from guardrail.programs import codec
from guardrail.programs.build import Built, build, prepare

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from guardrail.programs.messages import Arrays

    Answer = tuple[dict[str, Any], Arrays]

STATE_BYTES = 512 * 2**20
"""About how much memory the kept states may take; others are made again from what the service keeps."""
LEAST_STATES = 4
FILES = "file/"
UNKNOWN_STATE = "UNKNOWN_STATE"


class UnknownState(ProgramError):
    """The state is not here (any more)."""

    reason = UNKNOWN_STATE


class Desk:
    """Answers questions about one program, one after another.

    Args:
        folder: a private folder, into which the program's files are written.
    """

    def __init__(self, folder: Path) -> None:
        # This process is the program's own: its JAX is 64-bit throughout, and callbacks run on the calling thread.
        jax.config.update("jax_enable_x64", True)  # type: ignore[no-untyped-call]
        jax.config.update("jax_cpu_enable_async_dispatch", False)  # type: ignore[no-untyped-call]
        self.folder = folder
        self._built: Built | None = None
        self._states: OrderedDict[int, Any] = OrderedDict()
        self.operations: Mapping[str, Callable[[dict[str, Any], Arrays], Answer]] = {
            "hello": lambda header, arrays: ({}, {}),
            "load": self.load,
            "restore": self.restore,
            "observe": self.observe,
            "bound": self.bound,
            "summary": self.summary,
            "detail": self.detail,
            "dump": self.dump,
            "prior_predictive": self.prior_predictive,
        }

    def load(self, header: dict[str, Any], arrays: Arrays) -> Answer:
        """Execute the program, make its class and compile its kernels.

        :raises ProgramError: if the program is no hypothesis class.
        """
        spec = PolicySpec.model_validate_json(header["spec"])
        prepare(spec.hypotheses)
        function = self._execute(header, arrays)
        inputs = ProgramInputs([(name, length) for name, length in header["features"]], spec.hypotheses)  # type: ignore[arg-type]
        self._built = build(function, header["name"], spec, inputs, codec.harm_from_dict(header["harm"]))
        oracle, rows = self._built.oracle, inputs.examples()
        state = oracle.init()
        oracle.bound(state, rows[:1])
        oracle.bound(state, rows[:1], time.monotonic())
        oracle.bound(oracle.observe(state, rows[:1], np.zeros(1)), rows[:1])
        oracle.summary(state)
        return {"guarantee": codec.guarantee_to_dict(oracle.guarantee), "fingerprint": self._built.fingerprint}, {}

    def restore(self, header: dict[str, Any], arrays: Arrays) -> Answer:
        """Put a state under an id: the one that `dump` wrote, or without arrays the prior."""
        self._keep(header["state"], self._oracle.load(arrays) if arrays else self._oracle.init())
        return {}, {}

    def observe(self, header: dict[str, Any], arrays: Arrays) -> Answer:
        """Condition one state, and put the result under another id (or the same)."""
        state = self._state(header["state"])
        self._keep(header["into"], self._oracle.observe(state, arrays["rows"], arrays["outcomes"]))
        return {}, {}

    def bound(self, header: dict[str, Any], arrays: Arrays) -> Answer:
        """Bound the harm of some inputs."""
        seconds = header["seconds"]
        deadline = None if seconds is None else time.monotonic() + seconds
        found = self._oracle.bound(self._state(header["state"]), arrays["rows"], deadline)
        return {"bounds": [codec.bound_to_dict(bound) for bound in found]}, {}

    def summary(self, header: dict[str, Any], arrays: Arrays) -> Answer:
        """A state at a glance, and whether it is refuted or failed."""
        state = self._state(header["state"])
        summary = codec.summary_to_dict(self._oracle.summary(state, header["top"]))
        return {"summary": summary, "failed": self._oracle.failed(state)}, {}

    def detail(self, header: dict[str, Any], arrays: Arrays) -> Answer:
        """Some hypotheses, or parameters, of a state in full."""
        found = self._oracle.detail(self._state(header["state"]), header["limit"])
        return {"detail": codec.detail_to_dict(found)}, {}

    def dump(self, header: dict[str, Any], arrays: Arrays) -> Answer:
        """A state as arrays."""
        return {}, self._oracle.dump(self._state(header["state"]))

    def prior_predictive(self, header: dict[str, Any], arrays: Arrays) -> Answer:
        """Outcomes, log-likelihoods and harms before any data; see `prior_predictive.Checked`."""
        if self._built is None:
            raise ProgramError("no program is loaded")
        return self._built.prior_predictive()

    @property
    def _oracle(self) -> Any:
        if self._built is None:
            raise ProgramError("no program is loaded")
        return self._built.oracle

    def _state(self, key: int) -> Any:
        if key not in self._states:
            raise UnknownState(f"state {key} is not here")
        self._states.move_to_end(key)
        return self._states[key]

    def _keep(self, key: int, state: Any) -> None:
        self._states[key] = state
        self._states.move_to_end(key)
        # A state computes about as much again when it is first asked.
        observed = getattr(state, "evidence", state)
        size = max(1, 2 * sum(leaf.nbytes for leaf in jax.tree.leaves(observed) if hasattr(leaf, "nbytes")))
        while len(self._states) > max(LEAST_STATES, STATE_BYTES // size):
            self._states.popitem(last=False)

    def _execute(self, header: dict[str, Any], arrays: Arrays) -> Any:
        """The model function of the program, from the very bytes that were hashed."""
        name, file = header["name"], header["file"]
        for path, digest in header["digests"].items():
            content = arrays[FILES + path].tobytes()
            if hashlib.sha256(content).hexdigest() != digest:
                raise ProgramError(f"{path} is not the file that the policy's revision names")
            target = self.folder / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
        sys.path.append(str(self.folder))
        place = (self.folder / file).parent
        if place != self.folder:
            sys.path.append(str(place))
        spec = importlib.util.spec_from_file_location("guardrail_program", self.folder / file)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module
        try:
            spec.loader.exec_module(module)
        except SyntaxError as error:
            raise ProgramError(f"{file} is no Python: {error.msg} on line {error.lineno}") from error
        except ModuleNotFoundError as error:
            raise ProgramError(
                f"{file} needs the module {error.name!r}, which is not installed; programs need the extra 'models' "
                "(NumPyro) or 'torch' (Pyro), and what they import besides"
            ) from error
        function = getattr(module, header["function"], None)
        if not callable(function):
            known = sorted(
                n for n, v in vars(module).items() if callable(v) and getattr(v, "__module__", "") == spec.name
            )
            raise ProgramError(
                f"{name}: there is no function of that name; {file} defines {', '.join(known) or 'none'}"
            )
        return function
