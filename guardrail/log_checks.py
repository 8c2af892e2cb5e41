"""What a command that reads the logs asks of them first."""

from __future__ import annotations

from typing import TYPE_CHECKING

from guardrail.errors import LogUnusable

if TYPE_CHECKING:
    from guardrail.store.base import Store


def require_decisions(store: Store, policy: str | None, world: str | None) -> None:
    """Refuse a log without a decision that was asked for.

    :raises LogUnusable: OTHER_POLICY if it holds decisions of other policies only; LOG_EMPTY if it holds none.
    :raises StoreError: if the store cannot be read.
    """
    if next(iter(store.decisions(policy, world)), None) is not None:
        return
    if policy is not None and next(iter(store.decisions(policy)), None) is None:
        other = next(iter(store.decisions()), None)
        if other is not None:
            message = f"the log holds no decision of policy {policy!r}, but of others, for instance {other.policy!r}"
            raise LogUnusable(message, "OTHER_POLICY")
    where = "" if world is None else f" of world {world!r}"
    raise LogUnusable(f"the log holds no decision{where}", "LOG_EMPTY")
