"""Who may report where it acts itself."""

from __future__ import annotations

from guardrail.errors import PermissionDenied
from guardrail.policy import Policy
from guardrail.server.security.grants import ANYONE, Caller


def require_no_self_report(policy: Policy, world: str, caller: Caller) -> None:
    """Keep an agent from reporting where it acts. Its rights count: it could report under any observation id.

    :raises PermissionDenied: SELF_REPORT if it may act there, and the policy does not let agents report.
    """
    if caller is ANYONE or policy.spec.reporting.self_report:
        return
    if caller.may("CheckAction", policy.name, world):
        raise PermissionDenied(
            f"{caller.name} acts in world {world!r} of policy {policy.name!r}, so it may not report there: let "
            "another caller report, or have the policy say reporting: {self_report: true}",
            "SELF_REPORT",
        )
