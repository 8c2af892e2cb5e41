"""Pure parts of the store: numbering a batch, and checksums that bind a row to its place."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from guardrail.store.base import Appended, DecisionRecord, NewObservation, ResetRecord, Snapshot

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

WorldKey: TypeAlias = tuple[str, str]
"""Policy name and world id."""

LogKey: TypeAlias = tuple[str, str, int]
"""Policy name, world id and generation."""

ObservationKey: TypeAlias = tuple[str, str, str]
"""Policy name, world id and observation id."""


@dataclass(frozen=True, slots=True)
class Known:
    """Where an observation id stands, and with what content.

    Attributes:
        sequence: its place in the world's log.
        digest: digest of its content.
        generation: of that log.
    """

    sequence: int
    digest: str
    generation: int


@dataclass(frozen=True, slots=True)
class Log:
    """A world's present log before a batch.

    Attributes:
        length: number of its observations.
        generation: its number.
    """

    length: int
    generation: int


@dataclass(frozen=True, slots=True)
class Numbered:
    """What a batch comes to.

    Attributes:
        results: what became of each observation, in the order of the batch.
        accepted: the new observations with their sequence numbers.
        lengths: new length of each world's log that grew.
    """

    results: list[Appended]
    accepted: list[tuple[int, NewObservation]]
    lengths: dict[WorldKey, int]


def number(
    batch: Sequence[NewObservation], logs: Mapping[WorldKey, Log], known: Mapping[ObservationKey, Known]
) -> Numbered:
    """Number a batch in order, continuing each world's present log without gaps.

    Args:
        batch: what to append.
        logs: present log of every world in the batch.
        known: those of the batch's ids that the store holds already, in whichever log of their world.
    """
    numbered = Numbered([], [], {})
    seen: dict[ObservationKey, Known] = {}
    for new in batch:
        world = (new.policy, new.world)
        key = (new.policy, new.world, new.observation_id)
        first = known.get(key) or seen.get(key)
        if first is not None:
            same = first.digest == new.digest
            numbered.results.append(Appended(first.sequence, same, not same, first.generation))
            continue
        sequence = numbered.lengths.get(world, logs[world].length) + 1
        numbered.lengths[world] = sequence
        seen[key] = Known(sequence, new.digest, logs[world].generation)
        numbered.accepted.append((sequence, new))
        numbered.results.append(Appended(sequence, False, False, logs[world].generation))
    return numbered


def observation_checksum(
    log: LogKey,
    sequence: object,
    observation_id: object,
    digest: object,
    content: object,
    recorded_at: object,
    reporter: object = "",
) -> bytes:
    """16 bytes that change if any part of an observation, its log or its place does."""
    policy, world, generation = log
    fields = (policy, world, sequence, observation_id, digest, content, recorded_at)
    return checksum((*fields, *_if_not("reporter", reporter, ""), *_if_not("generation", generation, 1)))


def decision_checksum(record: DecisionRecord) -> bytes:
    """16 bytes that change if any part of a decision does."""
    texts = [str(text).encode(errors="surrogatepass") for text in (record.request, record.verdict)]
    rest = (
        record.decision_id,
        record.policy,
        record.policy_revision,
        record.world,
        record.posterior_revision,
        record.decision,
        record.decided_at,
        *map(len, texts),
        type(record.request) is str and type(record.verdict) is str,
        *_if_not("generation", record.generation, 1),
    )
    # The long texts are hashed as they are: writing them out with ascii() would be most of the cost.
    return hashlib.blake2b(_encode(rest) + b"".join(texts), digest_size=16).digest()


def reset_checksum(record: ResetRecord) -> bytes:
    """16 bytes that change if any part of a reset does."""
    return checksum(
        (
            record.policy,
            record.world,
            record.generation,
            record.observations,
            record.reason,
            record.caller,
            record.reset_at,
        )
    )


def escalation_checksum(fields: Sequence[object]) -> bytes:
    """16 bytes that change if any part of an escalation does."""
    return checksum(tuple(fields))


def policy_checksum(revision: object, name: object, document: object, recorded_at: object) -> bytes:
    """16 bytes that change if any part of a recorded policy does."""
    return checksum((revision, name, document, recorded_at))


def snapshot_checksum(snapshot: Snapshot) -> bytes:
    """SHA-256 of a snapshot: its payload and what it belongs to."""
    place = (snapshot.policy, snapshot.policy_revision, snapshot.world, snapshot.sequence, len(snapshot.payload))
    digest = hashlib.sha256(_encode((*place, *_if_not("generation", snapshot.generation, 1))))
    digest.update(snapshot.payload)
    return digest.digest()


def _if_not(name: str, value: object, default: object) -> tuple[object, ...]:
    """What rows of the first schema did not have is part of a checksum only where it says something."""
    return () if value == default and type(value) is type(default) else (name, value)


def checksum(fields: tuple[object, ...]) -> bytes:
    """16 bytes that change if any of the fields does, or its type."""
    return hashlib.blake2b(_encode(fields), digest_size=16).digest()


def _encode(fields: tuple[object, ...]) -> bytes:
    # ascii() tells types and field ends apart, takes whatever a damaged column may hold, and, unlike
    # repr(), does not depend on the Unicode version of the Python that computes it.
    return ascii(fields).encode("ascii")
