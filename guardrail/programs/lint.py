"""`guardrail policy lint` for programs: load them in their process, and look at what they say before any data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from guardrail.errors import MissingExtra, PolicyError
from guardrail.hypotheses.program_errors import ProgramError
from guardrail.policy.schema import OutcomeSpec
from guardrail.policy.yaml_source import read_document
from guardrail.programs.start import problem, start

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from guardrail.errors import Problem
    from guardrail.policy import Policy
    from guardrail.policy.program_schema import ProgramSpec
    from guardrail.programs.messages import Arrays

TOLERATED_OUTSIDE = 0.05
"""Share of outcomes outside the plausible range that is no cause for a warning."""


@dataclass(frozen=True, slots=True)
class Findings:
    """What a prior predictive check found.

    Attributes:
        errors: the program cannot be used.
        warnings: it can, but its prior says what its author calls implausible.
        drawn: `outcomes`, `log_likelihoods` and `harms`, float64[E, N] over E example inputs; empty if it did not run.
    """

    errors: list[Problem]
    warnings: list[Problem]
    drawn: Arrays


def check(policy: Policy) -> Findings:
    """Load a policy's program and run the prior predictive check.

    Args:
        policy: a policy whose hypotheses are a program.
    """
    try:
        oracle = start(policy)
    except PolicyError as error:
        return Findings(list(error.problems), [], {})
    try:
        drawn = oracle.prior_predictive()
    except ProgramError as error:
        return Findings([problem(policy, str(error))], [], {})
    finally:
        oracle.close()
    spec: ProgramSpec = policy.spec.hypotheses  # type: ignore[assignment]
    errors = [problem(policy, f"{spec.model} {message}") for message in _errors(drawn)]
    return Findings(errors, list(_warnings(policy, spec, drawn)), drawn)


def _errors(drawn: Arrays) -> Iterator[str]:
    outcomes, likelihoods, harms = drawn["outcomes"], drawn["log_likelihoods"], drawn["harms"]
    wrong = (
        (~np.isfinite(outcomes), "draws outcomes that are no finite numbers"),
        (~np.isfinite(likelihoods) & np.isfinite(outcomes), "gives its own outcomes no finite log-likelihood"),
        (~((harms >= 0) & (harms <= 1)), "gives harm probabilities that are not in [0, 1]"),
    )
    for places, what in wrong:
        for example in np.flatnonzero(places.any(axis=1)):
            count = int(places[example].sum())
            yield f"{what}, in {count} of {places.shape[1]} draws at example input {example + 1}"


def _warnings(policy: Policy, spec: ProgramSpec, drawn: Arrays) -> Iterator[Problem]:
    plausible = spec.prior_predictive
    lower = -np.inf if plausible.lower is None else plausible.lower
    upper = np.inf if plausible.upper is None else plausible.upper
    outcomes = drawn["outcomes"]
    document = read_document(policy.document, policy.path)
    outside = ((outcomes < lower) | (outcomes > upper)).mean(axis=1)
    for example in np.flatnonzero(outside > TOLERATED_OUTSIDE):
        low, high = np.quantile(outcomes[example], [0.05, 0.95])
        message = (
            f"{outside[example]:.0%} of the prior's outcomes at example input {example + 1} lie outside [{lower:g}, "
            f"{upper:g}] (90% of them in [{low:.4g}, {high:.4g}]); correct the priors, or the range"
        )
        yield document.problem(("hypotheses", "prior_predictive"), message)


def plot(policy: Policy, drawn: Arrays, file: Path) -> None:
    """Draw the prior predictive distribution of the outcome and of harm, for each example input, as PNG.

    :raises MissingExtra: if matplotlib is not installed.
    :raises OSError: if the file cannot be written.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtra("--plot", "sim") from error
    spec: ProgramSpec = policy.spec.hypotheses  # type: ignore[assignment]
    outcome, plausible = policy.spec.outcome, spec.prior_predictive
    figure = Figure(figsize=(9.0, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    for example, (outcomes, harms) in enumerate(zip(drawn["outcomes"], drawn["harms"], strict=True)):
        style: dict[str, Any] = {"histtype": "step", "density": True, "label": f"example input {example + 1}"}
        left.hist(outcomes[np.isfinite(outcomes)], bins=50, **style)
        right.hist(harms[np.isfinite(harms)], bins=np.linspace(0, 1, 51).tolist(), **style)
    for end in (plausible.lower, plausible.upper):
        if end is not None:
            left.axvline(end, color="grey", linestyle="--")
    unit = f" ({outcome.unit})" if isinstance(outcome, OutcomeSpec) and outcome.unit else ""
    left.set(xlabel=f"{outcome.name}{unit}", ylabel="density", title="outcomes before any data")
    right.set(xlabel="harm probability", title="harm of hypotheses")
    left.legend(fontsize="small")
    figure.suptitle(f"{policy.name}: prior predictive")
    figure.savefig(file, format="png", dpi=120)
