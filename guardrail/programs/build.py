"""From a program's function to its oracle; runs in the program's process."""

from __future__ import annotations

import importlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from guardrail.domain import Guarantee, GuaranteeKind, HarmEvent
from guardrail.hypotheses.program_errors import ProgramError
from guardrail.policy.program_schema import ProgramSpec, PyroProgram
from guardrail.policy.schema import BoundSpec, PolicySpec, RatioBound

if TYPE_CHECKING:
    from collections.abc import Callable

    from guardrail.hypotheses.program_inputs import ProgramInputs
    from guardrail.oracles.base import Oracle
    from guardrail.programs.messages import Arrays


@dataclass(frozen=True)
class Built:
    """A program's oracle.

    Attributes:
        oracle: over the program's class.
        fingerprint: of the program's numbers; a process started later must show the same one.
        prior_predictive: the prior predictive check; see `prior_predictive.check`.
    """

    oracle: Oracle
    fingerprint: str
    prior_predictive: Callable[[], tuple[dict[str, Any], Arrays]]


def prepare(hypotheses: object) -> None:
    """Set up the libraries that a program needs, before it is executed; for a process of its own.

    :raises ProgramError: if they are not installed.
    """
    extra = "torch" if isinstance(hypotheses, PyroProgram) else "models"
    try:
        if isinstance(hypotheses, PyroProgram):
            from guardrail.hypotheses import torch_program

            torch_program.configure()
        else:
            importlib.import_module("guardrail.hypotheses.program")
    except ModuleNotFoundError as error:
        raise ProgramError(
            f"cannot be loaded: {error.name!r} is not installed; pip install 'guardrail[{extra}]'"
        ) from error


def build(function: Callable[..., Any], name: str, spec: PolicySpec, inputs: ProgramInputs, harm: HarmEvent) -> Built:
    """Make the class, check the program, and build its oracle.

    Args:
        function: the user's model.
        name: how the policy calls it.
        spec: the policy.
        inputs: how rows hold the program's inputs.
        harm: the harm event.

    :raises ProgramError: if the program is no hypothesis class.
    """
    hypotheses = spec.hypotheses
    if not isinstance(hypotheses, ProgramSpec):
        raise ProgramError(f"family {hypotheses.family} is no program")
    if isinstance(hypotheses, PyroProgram):
        return _pyro(function, name, hypotheses, spec, inputs, harm)
    return _numpyro(function, name, hypotheses, spec, inputs, harm)


def _pyro(
    function: Callable[..., Any],
    name: str,
    hypotheses: PyroProgram,
    spec: PolicySpec,
    inputs: ProgramInputs,
    harm: HarmEvent,
) -> Built:
    from guardrail.hypotheses import torch_program
    from guardrail.oracles.enumerated import EnumeratedOracle
    from guardrail.programs import prior_predictive

    family = torch_program.TorchProgramFamily(function, name, hypotheses, inputs, spec.outcome.name, harm)
    fingerprint = family.verify()
    oracle = EnumeratedOracle(family, spec.bound)
    return Built(oracle, fingerprint, lambda: prior_predictive.check(family))


def _numpyro(
    function: Callable[..., Any],
    name: str,
    hypotheses: ProgramSpec,
    spec: PolicySpec,
    inputs: ProgramInputs,
    harm: HarmEvent,
) -> Built:
    from guardrail.hypotheses.program import ProgramFamily
    from guardrail.oracles.enumerated import EnumeratedOracle
    from guardrail.programs import prior_predictive

    family = ProgramFamily(function, name, hypotheses, inputs, spec.outcome.name, harm)
    fingerprint = family.verify()
    oracle = EnumeratedOracle(family, class_bound(hypotheses, spec.bound))
    if hypotheses.monte_carlo is not None:
        oracle.guarantee = estimated(oracle.guarantee, hypotheses)
    return Built(oracle, fingerprint, lambda: prior_predictive.check(family))


def class_bound(hypotheses: ProgramSpec, bound: BoundSpec) -> BoundSpec:
    """The bound over the class: what simulated harm may err is taken from its delta."""
    if hypotheses.monte_carlo is None or not isinstance(bound, RatioBound):
        return bound
    return bound.model_copy(update={"delta": bound.delta - hypotheses.monte_carlo.delta})


def estimated(guarantee: Guarantee, hypotheses: ProgramSpec) -> Guarantee:
    """What is left of a guarantee when harm is simulated."""
    assert hypotheses.monte_carlo is not None
    if guarantee.kind is not GuaranteeKind.THEOREM:
        return guarantee
    note = (
        f"harm is a one-sided Clopper-Pearson limit from {hypotheses.monte_carlo.samples} simulated outcomes, at error "
        f"{hypotheses.monte_carlo.delta:g} for one check at a time; over many checks nothing is promised"
    )
    return replace(guarantee, kind=GuaranteeKind.ESTIMATE, confidence=0.0, assumptions=(note, *guarantee.assumptions))
