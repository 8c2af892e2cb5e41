"""The shape of a harm budget in a policy."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from guardrail.policy.durations import Duration
from guardrail.policy.schema_base import Model

Total = Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)]


class SessionBudget(Model):
    """What the harm bounds of the accepted actions of one session may add up to."""

    per: Literal["session"]
    total: Total = Field(description="P(any harm in a session) <= delta + total, if the bound's guarantee is a theorem")


class WindowBudget(Model):
    """What the harm bounds of the actions accepted in a world within any window of this length may add up to."""

    per: Literal["window"]
    window: Duration = Field(description="its length: 90s, 15m, 24h or 7d")
    total: Total = Field(description="P(any harm in a window) <= delta + total, if the bound's guarantee is a theorem")


BudgetSpec = Annotated[SessionBudget | WindowBudget, Field(discriminator="per")]
