"""The shape of what a policy says about reports."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from guardrail.policy.durations import Duration
from guardrail.policy.schema_base import Model


class ReportingSpec(Model):
    """Who may report outcomes, and until when they must."""

    self_report: bool = Field(
        False,
        description="an agent may report the outcomes of its own actions; the guarantee then assumes that it tells "
        "the truth about all of them",
    )
    within: Duration | None = Field(
        None,
        description="how long after an accept its outcome must be reported: 90s, 15m, 24h or 7d; for ever if absent",
    )
    overdue: Literal["reject", "escalate", "assume_harm"] = Field(
        "reject",
        description="what an outcome that is overdue does to its world: every check is rejected, or at least "
        "escalated, until it is reported; or it is taken for harm, and bounds promise nothing from then on",
    )
