"""A runtime safety guardrail: it bounds the probability of harm of an action before the action is taken.

Names are loaded when they are first used: importing this package loads neither grpc, jax nor torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from guardrail import bounds
    from guardrail.client.access import Tls
    from guardrail.client.aio import AsyncClient
    from guardrail.client.results import CheckedActions, Report, Reported
    from guardrail.client.sync import Client
    from guardrail.domain import (
        CautiousHypothesis,
        Decision,
        Guarantee,
        GuaranteeKind,
        Reason,
        ReasonCode,
        Verdict,
    )
    from guardrail.errors import (
        ActionBlocked,
        DecisionNotFound,
        GuardrailError,
        InvalidInput,
        LimitExceeded,
        MissingExtra,
        NoVerdict,
        PermissionDenied,
        PolicyError,
        PolicyNotFound,
        ReportConflict,
        ServiceError,
        Unauthenticated,
        WorldNotFound,
    )
    from guardrail.guard import Guard

__version__ = "0.1.0"

__all__ = [
    "ActionBlocked",
    "AsyncClient",
    "CautiousHypothesis",
    "CheckedActions",
    "Client",
    "Decision",
    "DecisionNotFound",
    "Guarantee",
    "GuaranteeKind",
    "Guard",
    "GuardrailError",
    "InvalidInput",
    "LimitExceeded",
    "MissingExtra",
    "NoVerdict",
    "PermissionDenied",
    "PolicyError",
    "PolicyNotFound",
    "Reason",
    "ReasonCode",
    "Report",
    "ReportConflict",
    "Reported",
    "ServiceError",
    "Tls",
    "Unauthenticated",
    "Verdict",
    "WorldNotFound",
    "__version__",
    "bounds",
]

_HOMES = {
    "AsyncClient": "guardrail.client.aio",
    "CheckedActions": "guardrail.client.results",
    "Client": "guardrail.client.sync",
    "Guard": "guardrail.guard",
    "Report": "guardrail.client.results",
    "Reported": "guardrail.client.results",
    "Tls": "guardrail.client.access",
    **dict.fromkeys(
        ("CautiousHypothesis", "Decision", "Guarantee", "GuaranteeKind", "Reason", "ReasonCode", "Verdict"),
        "guardrail.domain",
    ),
}
_NEED_THE_SERVER_EXTRA = ("Guard", "bounds")


def __getattr__(name: str) -> Any:
    """Load a public name.

    :raises AttributeError: if the name is not public.
    :raises MissingExtra: if it needs an extra that is not installed.
    """
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        value = _load(name)
    except ModuleNotFoundError as error:
        ours = (error.name or "").partition(".")[0] == __name__
        if ours or name not in _NEED_THE_SERVER_EXTRA:
            raise
        errors = importlib.import_module("guardrail.errors")
        raise errors.MissingExtra(f"guardrail.{name}", "server") from error
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def _load(name: str) -> Any:
    if name == "bounds":
        return importlib.import_module("guardrail.bounds")
    return getattr(importlib.import_module(_HOMES.get(name, "guardrail.errors")), name)
