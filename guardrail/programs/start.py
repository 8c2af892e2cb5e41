"""Starting a policy's program; what is wrong with it is told at its place in the policy's file."""

from __future__ import annotations

from typing import TYPE_CHECKING

from guardrail.errors import PolicyError
from guardrail.hypotheses.program_errors import ProgramError
from guardrail.policy.yaml_source import read_document
from guardrail.programs.oracle import IsolatedOracle

if TYPE_CHECKING:
    from guardrail.errors import Problem
    from guardrail.policy import Policy


def start(policy: Policy) -> IsolatedOracle:
    """The oracle of a policy whose hypotheses are a program.

    :raises PolicyError: if the program cannot be loaded, or is no hypothesis class.
    """
    try:
        return IsolatedOracle(policy)
    except ProgramError as error:
        raise PolicyError([problem(policy, str(error))]) from error


def problem(policy: Policy, message: str) -> Problem:
    """A problem of a policy's program."""
    return read_document(policy.document, policy.path).problem(("hypotheses", "model"), message)
