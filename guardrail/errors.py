"""Every error that the project raises on purpose.

GuardrailError
├── PolicyError                 a policy document is wrong; holds every problem found
├── InvalidInput                a context, action or outcome does not fit the policy
├── PolicyNotFound
├── WorldNotFound
├── DecisionNotFound
├── ReportConflict              the id was used before with other content
├── LimitExceeded               a configured limit is reached
├── DeadlinePassed              the caller's deadline has passed, so nothing was decided
├── Unauthenticated             the caller did not show who it is
├── PermissionDenied            the caller may not do this
├── SecurityInvalid             the security settings are wrong or partial, so the service does not start
├── StoreError                  the store cannot be read or written
│   ├── StoreCorrupt            what it holds is damaged
│   ├── SchemaMismatch          the database is of another version
│   └── DecisionLogUnavailable  decisions cannot be logged, so none are made
├── RevisionMismatch            the request names another revision of the policy
├── RevisionNotReached          the world's log does not hold as many observations as the request wants
├── GenerationMismatch          the request names another generation of the world
├── NotServing                  the service is starting, stopping, or cannot listen
├── SnapshotInvalid             a snapshot does not fit the policy or is damaged
├── WorldUnavailable            a world's posterior cannot be built from its log
├── LogUnusable                 the logs do not hold what a command needs that reads them
├── MissingExtra                an optional dependency is not installed
├── DeviceUnavailable           the device asked for is not on this machine
├── ServiceError                the client could not report or read
└── NoVerdict                   the client has no verdict: do not act
    └── ActionBlocked           the verdict is reject or escalate (raised by `guarded`)

`reason` is a stable code for programs, the message is for people.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from guardrail.domain import Verdict


class GuardrailError(Exception):
    """Base of every error raised on purpose."""

    reason: str = "INTERNAL"


class Problem:
    """One thing wrong in a document: where, what, and what would be right.

    Attributes:
        path: the document's file name.
        line: 1-based line; 0 if unknown.
        column: 1-based column; 0 if unknown.
        message: what is wrong and what would be right.
    """

    __slots__ = ("column", "line", "message", "path")

    def __init__(self, path: str, line: int, column: int, message: str) -> None:
        self.path, self.line, self.column, self.message = path, line, column, message

    def __str__(self) -> str:
        return f"{self.path}:{self.line}:{self.column}: {self.message}"

    def __repr__(self) -> str:
        return f"Problem({str(self)!r})"


class PolicyError(GuardrailError):
    """A policy document is wrong. `problems` holds everything that was found, not the first only."""

    reason = "POLICY_INVALID"

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(map(str, self.problems)))


class InvalidInput(GuardrailError):
    """A context, action or outcome does not fit the policy's declarations."""

    reason = "INVALID_INPUT"

    def __init__(self, message: str, reason: str = "INVALID_INPUT") -> None:
        super().__init__(message)
        self.reason = reason


class PolicyNotFound(GuardrailError):
    """No policy of that name is loaded."""

    reason = "POLICY_NOT_FOUND"


class WorldNotFound(GuardrailError):
    """No world of that id exists for the policy."""

    reason = "WORLD_NOT_FOUND"


class DecisionNotFound(GuardrailError):
    """No decision of that id is in the log."""

    reason = "DECISION_NOT_FOUND"


class ReportConflict(GuardrailError):
    """The observation id was used before with other content."""

    reason = "REPORT_CONFLICT"


class LimitExceeded(GuardrailError):
    """A configured limit is reached.

    Attributes:
        retry_after: seconds after which another try may succeed; None if waiting does not help.
    """

    reason = "LIMIT_EXCEEDED"

    def __init__(self, message: str, reason: str = "LIMIT_EXCEEDED", *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.reason, self.retry_after = reason, retry_after


class DeadlinePassed(GuardrailError):
    """The caller's deadline has passed, so nothing was decided: nobody would hear it."""

    reason = "DEADLINE_EXCEEDED"


class Unauthenticated(GuardrailError):
    """The caller did not show who it is.

    Attributes:
        reason: CREDENTIALS_MISSING, CREDENTIALS_INVALID or CREDENTIALS_EXPIRED.
    """

    reason = "CREDENTIALS_INVALID"

    def __init__(self, message: str, reason: str = "CREDENTIALS_INVALID") -> None:
        super().__init__(message)
        self.reason = reason


class PermissionDenied(GuardrailError):
    """The caller is known and may not do this.

    Attributes:
        reason: PERMISSION_DENIED, or SELF_REPORT for an agent that reports on worlds it acts in.
    """

    reason = "PERMISSION_DENIED"

    def __init__(self, message: str, reason: str = "PERMISSION_DENIED") -> None:
        super().__init__(message)
        self.reason = reason


class SecurityInvalid(GuardrailError):
    """Security settings are wrong or partial: the service does not start with them, or keeps those it has.

    Attributes:
        problems: everything that is wrong in a callers file; empty if something else is.
    """

    reason = "SECURITY_INVALID"

    def __init__(self, message: str = "", problems: Sequence[Problem] = ()) -> None:
        self.problems = tuple(problems)
        super().__init__(message or "\n".join(map(str, self.problems)))


class StoreError(GuardrailError):
    """The store cannot be read or written."""

    reason = "STORE_UNAVAILABLE"


class StoreCorrupt(StoreError):
    """What the store holds is damaged."""

    reason = "STORE_CORRUPT"


class SchemaMismatch(StoreError):
    """The database was written by another version of the schema."""

    reason = "STORE_SCHEMA_MISMATCH"


class DecisionLogUnavailable(StoreError):
    """Decisions cannot be logged, so none are made."""

    reason = "DECISION_LOG_UNAVAILABLE"


class RevisionMismatch(GuardrailError):
    """The request names another revision of the policy than the loaded one."""

    reason = "POLICY_REVISION_MISMATCH"


class RevisionNotReached(GuardrailError):
    """The world's log does not hold as many observations as the request wants."""

    reason = "REVISION_NOT_REACHED"


class GenerationMismatch(GuardrailError):
    """The request names another generation of the world than the present one."""

    reason = "GENERATION_MISMATCH"


class NotServing(GuardrailError):
    """The service is starting, stopping, or cannot listen."""

    reason = "NOT_SERVING"


class SnapshotInvalid(GuardrailError):
    """A snapshot does not fit the policy or is damaged; rebuild from the log instead."""

    reason = "SNAPSHOT_INVALID"


class WorldUnavailable(GuardrailError):
    """A world's posterior cannot be built from its log under the current policy."""

    reason = "WORLD_UNAVAILABLE"


class LogUnusable(GuardrailError):
    """The logs do not hold what a command needs that reads them without a service.

    Attributes:
        reason: LOG_EMPTY (no such decision), OTHER_POLICY (decisions of other policies only, or two policies that are
            not versions of one), POLICIES_EQUAL (two that say the same), LOG_UNREPORTED (no outcome of a decision).
    """

    def __init__(self, message: str, reason: str) -> None:
        super().__init__(message)
        self.reason = reason


class MissingExtra(GuardrailError, ImportError):
    """An optional dependency is not installed."""

    reason = "MISSING_EXTRA"

    def __init__(self, what: str, extra: str) -> None:
        super().__init__(f"{what} needs the '{extra}' extra: pip install 'guardrail[{extra}]'")


class DeviceUnavailable(GuardrailError):
    """The device asked for is not on this machine."""

    reason = "DEVICE_UNAVAILABLE"


class ServiceError(GuardrailError):
    """A report or a read failed, and no error above says why.

    A report that fails may still have been written: report again with the same observation id.

    Attributes:
        reason: the service's stable reason, or DEADLINE_EXCEEDED, UNREACHABLE, MALFORMED_REPLY, CLIENT_CLOSED.
        code: name of the gRPC status, for instance UNAVAILABLE.
    """

    reason = "SERVICE_ERROR"

    def __init__(self, message: str, reason: str, code: str) -> None:
        super().__init__(message)
        self.reason, self.code = reason, code


class NoVerdict(GuardrailError):
    """There is no verdict, so the action must not be carried out.

    Attributes:
        reason: the service's stable reason, or DEADLINE_EXCEEDED, UNREACHABLE, MALFORMED_REPLY, CLIENT_CLOSED.
        retry_after: seconds after which the service may have one (OVERLOADED, RATE_LIMITED); None if it did not say.
            The client does not try again by itself: that would be more load.
    """

    reason = "NO_VERDICT"

    def __init__(self, message: str, reason: str = "NO_VERDICT", *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.reason, self.retry_after = reason, retry_after


class ActionBlocked(NoVerdict):
    """The verdict is not accept. `verdict` says why."""

    def __init__(self, verdict: Verdict) -> None:
        self.verdict = verdict
        why = "; ".join(f"{r.code}: {r.message}" for r in verdict.reasons)
        super().__init__(f"{verdict.decision}: {why}", reason=f"ACTION_{verdict.decision.upper()}")
