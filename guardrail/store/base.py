"""What a store must do. Every implementation proves itself with `guardrail.testing.store_contract`.

A store is used from any number of threads; those that write take turns. Other stores, in other processes,
may write to the same database at the same time if it allows that (`Store.follow`). A store holds three
append-only records (observations, decisions, policy documents) and snapshots, which are only
a cache: a posterior is a pure function of policy document and observation log.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


@dataclass(frozen=True, slots=True)
class NewObservation:
    """An observation to append.

    Attributes:
        policy: policy name.
        world: world id.
        observation_id: the reporter's id, unique within (policy, world).
        digest: SHA-256 (hex) of the canonical content; equal content has an equal digest.
        content: canonical JSON text of {"action": ..., "context": ..., "outcome": ...}.
    """

    policy: str
    world: str
    observation_id: str
    digest: str
    content: str


@dataclass(frozen=True, slots=True)
class Appended:
    """What became of one observation.

    Attributes:
        sequence: its 1-based place in the world's log; that of the first report if it is a duplicate.
        duplicate: True if the same id with the same digest was already there.
        conflict: True if the id was there with another digest; nothing was written for it.
        generation: that of the world's log; see `WorldRecord`.
    """

    sequence: int
    duplicate: bool
    conflict: bool
    generation: int = 1


@dataclass(frozen=True, slots=True)
class ObservationRecord:
    """One acknowledged observation.

    Attributes:
        sequence: 1-based place in the world's log, without gaps.
        observation_id: the reporter's id.
        content: canonical JSON text of {"action": ..., "context": ..., "outcome": ...}.
        recorded_at: seconds since the epoch, UTC.
    """

    sequence: int
    observation_id: str
    content: str
    recorded_at: float


@dataclass(frozen=True, slots=True)
class DecisionRecord:
    """One logged decision.

    Attributes:
        decision_id: unique.
        policy: policy name.
        policy_revision: digest of the policy document.
        world: world id.
        posterior_revision: number of observations the decision rests on.
        decision: accept, escalate or reject.
        request: canonical JSON text of {"action": ..., "context": ...}.
        verdict: JSON text of the whole verdict.
        decided_at: seconds since the epoch, UTC.
    """

    decision_id: str
    policy: str
    policy_revision: str
    world: str
    posterior_revision: int
    decision: str
    request: str
    verdict: str
    decided_at: float


@dataclass(frozen=True, slots=True)
class WorldRecord:
    """One world.

    Attributes:
        policy: policy name.
        world: world id.
        observations: length of its present log.
        generation: 1 for its first log; each reset closes the log and starts the next.
    """

    policy: str
    world: str
    observations: int
    generation: int = 1


@dataclass(frozen=True, slots=True)
class Changes:
    """Which logs have changed since one asked last.

    Attributes:
        worlds: policy name and world id of logs that grew or were reset.
        missed: True if others may have changed as well: look at all of them.
    """

    worlds: frozenset[tuple[str, str]]
    missed: bool


class Feed(Protocol):
    """Tells what any writer, this store included, has committed. Used from one thread."""

    def next(self, timeout: float) -> Changes:
        """Wait until something changed, at most `timeout` seconds. The first answer, and the first after a
        lost connection, has `missed` set.

        :raises StoreError: if the database cannot be reached; calling again tries again.
        """
        ...

    def close(self) -> None:
        """Stop listening. A `next` under way ends soon. Calling it again does nothing."""
        ...


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A cached state.

    Attributes:
        policy: policy name.
        policy_revision: digest of the policy document it was computed under.
        world: world id.
        sequence: number of observations it rests on.
        payload: the state's arrays; the store checks their integrity, never their meaning.
    """

    policy: str
    policy_revision: str
    world: str
    sequence: int
    payload: bytes


class Store(Protocol):
    """Durable, append-only records. Every method may block and raises StoreError if the store fails."""

    def append_observations(self, batch: Sequence[NewObservation]) -> list[Appended]:
        """Append a batch in order, in one transaction that is durable when this returns.

        Must: number each world's observations 1, 2, ... without gaps; treat a repeated id (in the
        store or earlier in the batch) as a duplicate or a conflict; write all or nothing; all this also
        when several stores append to one world at the same time.

        :raises StoreError: if the transaction failed. Nothing was written, unless the connection to the database
            was lost while it was committed: appending the same batch again counts nothing twice.
        """
        ...

    def append_decisions(self, batch: Sequence[DecisionRecord]) -> None:
        """Append decisions in one transaction that is durable when this returns.

        Must: leave a decision that is there with equal content as it is, so that a batch whose
        fate is unknown may be appended again.

        :raises StoreError: if the transaction failed, or an id is used with other content; nothing
            was written.
        """
        ...

    def record_policy(self, name: str, revision: str, document: str) -> None:
        """Keep a policy document under its revision; a revision already there is left as it is."""
        ...

    def policy_document(self, revision: str) -> str | None:
        """The policy document of a revision; None if it was never recorded."""
        ...

    def observations(self, policy: str, world: str, after: int = 0) -> Iterator[ObservationRecord]:
        """A world's observations with sequence > after, in order, without loading all at once.

        Ends with the last one that was there when iteration started.

        :raises StoreCorrupt: if a record is damaged or a sequence number is missing.
        """
        ...

    def observation_count(self, policy: str, world: str) -> int:
        """Length of a world's log; 0 for an unknown world."""
        ...

    def head(self, policy: str, world: str) -> WorldRecord | None:
        """The present log of a world; None if the world was never heard of."""
        ...

    def follow(self) -> Feed | None:
        """A feed of changes; None if no other store can write to this database while this one is open."""
        ...

    def worlds(self, policy: str | None = None) -> list[WorldRecord]:
        """All worlds with observations, sorted by policy and world."""
        ...

    def decision(self, decision_id: str) -> DecisionRecord | None:
        """One decision; None if it is not in the log."""
        ...

    def decisions(self, policy: str | None = None, world: str | None = None) -> Iterator[DecisionRecord]:
        """Logged decisions ordered by policy, world, policy revision, posterior revision, time."""
        ...

    def save_snapshot(self, snapshot: Snapshot) -> None:
        """Keep a snapshot; older ones of the same world and policy revision may go."""
        ...

    def latest_snapshot(self, policy: str, world: str, policy_revision: str) -> Snapshot | None:
        """The newest intact snapshot of that revision; None if there is none or it is damaged."""
        ...

    def close(self) -> None:
        """Release everything. Calling it again does nothing."""
        ...
