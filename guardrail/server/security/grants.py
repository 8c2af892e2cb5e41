"""What callers may do: roles, what each RPC takes, and where a grant reaches. Pure: no I/O, no clock."""

from __future__ import annotations

import enum
import functools
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import translate
from types import MappingProxyType
from typing import Final

from guardrail.errors import PermissionDenied
from guardrail.server.security.rate import Rate


class Role(enum.StrEnum):
    """What a grant lets a caller do."""

    AGENT = "agent"
    """Asks before it acts."""
    REPORTER = "reporter"
    """Says what came of it."""
    APPROVER = "approver"
    """Decides about escalated actions; looks at decisions."""
    OPERATOR = "operator"
    """Runs the service; may look at whatever a viewer may."""
    VIEWER = "viewer"
    """Looks, and changes nothing."""


class Scope(enum.Enum):
    """What of the request a grant must cover."""

    WORLD = "policy and world of the request"
    POLICY = "the policy of the request"
    SEEN = "nothing: what is not covered is left out of the answer"
    EVERYTHING = "all policies and worlds, by `*`"
    NOTHING = "nothing: the call concerns no policy and no world"


@dataclass(frozen=True, slots=True)
class Rule:
    """What an RPC takes.

    Attributes:
        roles: one of these.
        scope: what a grant with such a role must cover.
    """

    roles: frozenset[Role]
    scope: Scope


def _rule(scope: Scope, *roles: Role) -> Rule:
    return Rule(frozenset(roles), scope)


_LOOKING = (Role.VIEWER, Role.OPERATOR)

RULES: Final[Mapping[str, Rule]] = MappingProxyType(
    {
        "CheckAction": _rule(Scope.WORLD, Role.AGENT),
        "CheckActions": _rule(Scope.WORLD, Role.AGENT),
        "ReportOutcome": _rule(Scope.WORLD, Role.REPORTER),
        "ReportOutcomes": _rule(Scope.WORLD, Role.REPORTER),
        "GetWorld": _rule(Scope.WORLD, *_LOOKING),
        "ListWorlds": _rule(Scope.SEEN, *_LOOKING),
        "ReportNotTaken": _rule(Scope.WORLD, Role.REPORTER),
        "ListDecisions": _rule(Scope.SEEN, Role.APPROVER, *_LOOKING),
        "GetDecision": _rule(Scope.SEEN, Role.APPROVER, *_LOOKING),
        "WatchDecisions": _rule(Scope.SEEN, Role.APPROVER, *_LOOKING),
        "ListPolicies": _rule(Scope.SEEN, *Role),
        "GetPolicy": _rule(Scope.POLICY, *Role),
        "ValidatePolicy": _rule(Scope.NOTHING, *_LOOKING),
        "ReloadPolicies": _rule(Scope.EVERYTHING, Role.OPERATOR),
        "GetSession": _rule(Scope.WORLD, Role.AGENT, Role.APPROVER, *_LOOKING),
        "ListEscalations": _rule(Scope.SEEN, Role.APPROVER, *_LOOKING),
        "ResolveEscalation": _rule(Scope.SEEN, Role.APPROVER),
        "ResetWorld": _rule(Scope.WORLD, Role.OPERATOR),
    }
)
"""Each RPC's rule. One without a rule is denied to every caller."""


@functools.lru_cache(maxsize=4_096)
def _pattern(glob: str) -> re.Pattern[str]:
    return re.compile(translate(glob))


@dataclass(frozen=True, slots=True)
class Grant:
    """Roles for some policies and worlds.

    Attributes:
        roles: what may be done.
        policies: globs (`*`, `?`, `[abc]`) of policy names, case-sensitive.
        worlds: globs of world ids, case-sensitive; `*` matches `/` too.
    """

    roles: frozenset[Role]
    policies: tuple[str, ...]
    worlds: tuple[str, ...]

    def covers_policy(self, policy: str) -> bool:
        """True if it reaches a policy, at least for some world."""
        return any(_pattern(glob).match(policy) for glob in self.policies)

    def covers(self, policy: str, world: str) -> bool:
        """True if it reaches a world of a policy."""
        return self.covers_policy(policy) and any(_pattern(glob).match(world) for glob in self.worlds)

    @property
    def covers_everything(self) -> bool:
        """True if it reaches every policy and world, by `*`."""
        return "*" in self.policies and "*" in self.worlds


@dataclass(frozen=True, slots=True)
class Caller:
    """Somebody who showed who it is.

    Attributes:
        name: in the decision log and in limits: the entry's name, or `name/subject` where several share an entry.
        grants: what it may do.
        rate: how often it may ask; None for no limit.
        max_worlds: most worlds that its reports may bring into being; None for no limit.
    """

    name: str
    grants: tuple[Grant, ...]
    rate: Rate | None = None
    max_worlds: int | None = None
    _roles: frozenset[Role] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        roles = frozenset(role for grant in self.grants for role in grant.roles)
        object.__setattr__(self, "_roles", roles)

    def require_role(self, rpc: str) -> None:
        """Refuse a call that no request could make right; looks at no request.

        :raises PermissionDenied: if no grant has a role that the RPC takes.
        """
        rule = RULES.get(rpc)
        if rule is None or not rule.roles & self._roles:
            takes = "" if rule is None else f": it takes the role {' or '.join(sorted(rule.roles))}"
            raise PermissionDenied(f"{self.name} may not call {rpc}{takes}")

    def require(self, rpc: str, policy: str, world: str) -> None:
        """Refuse a request whose policy and world no grant with a fitting role covers.

        :raises PermissionDenied: if none does.
        """
        if not self.may(rpc, policy, world):
            where = {Scope.WORLD: f" for world {world!r} of policy {policy!r}", Scope.POLICY: f" for policy {policy!r}"}
            scope = RULES[rpc].scope if rpc in RULES else Scope.NOTHING
            everything = "; it takes the role operator for policies '*' and worlds '*'"
            raise PermissionDenied(
                f"{self.name} may not call {rpc}{where.get(scope, '')}{everything if scope is Scope.EVERYTHING else ''}"
            )

    def may(self, rpc: str, policy: str = "", world: str = "") -> bool:
        """True if a request may be made. For Scope.SEEN the request may, whatever it names; see `sees`."""
        rule = RULES.get(rpc)
        if rule is None:
            return False
        return any(_reaches(rule.scope, grant, policy, world) for grant in self.grants if rule.roles & grant.roles)

    def sees(self, rpc: str, policy: str, world: str | None = None) -> bool:
        """True if what is about a world, or about a policy as a whole, may be in the RPC's answer."""
        rule = RULES.get(rpc)
        fitting = [grant for grant in self.grants if rule is not None and rule.roles & grant.roles]
        if world is None:
            return any(grant.covers_policy(policy) for grant in fitting)
        return any(grant.covers(policy, world) for grant in fitting)


def _reaches(scope: Scope, grant: Grant, policy: str, world: str) -> bool:
    match scope:
        case Scope.WORLD:
            return grant.covers(policy, world)
        case Scope.POLICY:
            return grant.covers_policy(policy)
        case Scope.EVERYTHING:
            return grant.covers_everything
        case Scope.SEEN | Scope.NOTHING:
            return True


ANYONE: Final = Caller("", (Grant(frozenset(Role), ("*",), ("*",)),))
"""Everybody on this machine, where there is no callers file: may do everything."""
