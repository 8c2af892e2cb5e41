"""From a policy's parts to its oracle."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from guardrail.hypotheses import registry
from guardrail.policy.memory_schema import HiddenMarkov
from guardrail.policy.schema import BetaBernoulli, BoundSpec, GaussianLinear, HypothesesSpec

if TYPE_CHECKING:
    from guardrail.domain import HarmEvent
    from guardrail.hypotheses.base import EnumeratedFamily, HistoryFamily
    from guardrail.hypotheses.conjugate import ConjugateFamily
    from guardrail.oracles.base import Oracle
    from guardrail.oracles.placement import DeviceKind
    from guardrail.policy import Policy


def build_oracle_of(policy: Policy, device: DeviceKind = "cpu") -> Oracle:
    """The oracle of a policy; a program's runs in a process of its own.

    :raises ValueError: if the class is inconsistent; see `build_oracle`.
    :raises PolicyError: if the hypotheses are a program, and it cannot be loaded or is no hypothesis class.
    """
    if policy.program is None:
        return build_oracle(policy.spec.hypotheses, policy.spec.bound, policy.harm, policy.feature_names, device)
    from guardrail.programs.start import start

    return start(policy)


def build_oracle(
    hypotheses: HypothesesSpec,
    bound: BoundSpec,
    harm: HarmEvent,
    feature_names: tuple[str, ...],
    device: DeviceKind = "cpu",
) -> Oracle:
    """The oracle for a hypothesis class under a bound.

    Args:
        hypotheses: the policy's hypothesis class.
        bound: the policy's bound.
        harm: the harm event over the outcome.
        feature_names: the flattened numeric features, in the order in which rows hold them.
        device: what to compute an enumerated class on.

    :raises DeviceUnavailable: if there is no such device.
    :raises ValueError: if the class is inconsistent in itself, or does not fit the bound, the harm event
        or the features.
    """
    family = registry.build(hypotheses, harm, feature_names)
    if isinstance(hypotheses, BetaBernoulli | GaussianLinear):
        from guardrail.oracles import conjugate

        return conjugate.build(cast("ConjugateFamily", family), bound)
    if isinstance(hypotheses, HiddenMarkov):
        from guardrail.oracles.history import HistoryOracle

        return HistoryOracle(cast("HistoryFamily", family), bound)
    from guardrail.oracles import placement
    from guardrail.oracles.enumerated import EnumeratedOracle

    return EnumeratedOracle(cast("EnumeratedFamily", family), bound, placement.devices(device))


def close(oracle: Oracle) -> None:
    """End the process of a program's oracle; nothing for the others."""
    from guardrail.programs.oracle import IsolatedOracle

    if isinstance(oracle, IsolatedOracle):
        oracle.close()
