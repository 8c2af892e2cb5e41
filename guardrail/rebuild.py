"""A posterior from what the store holds: a pure function of policy and observation log."""

from __future__ import annotations

import contextlib
import io
import itertools
import json
from typing import Any

import numpy as np
import numpy.typing as npt

from guardrail.errors import InvalidInput, SnapshotInvalid, WorldUnavailable
from guardrail.guard import Judge
from guardrail.oracles.base import Rows
from guardrail.store.base import ObservationRecord, Snapshot, Store

CHUNK = 4_096
"""Observations handled at a time: bounds the memory of a rebuild."""


SNAPSHOT_FORMAT = 3
"""Raised whenever the arithmetic of a state changes: a snapshot holds sets that an older release may have
computed too narrow, and a running intersection would keep them so."""
_FORMAT = "snapshot_format"
_LAST = "snapshot_last_observation"


def encode_snapshot(arrays: dict[str, npt.NDArray[Any]]) -> bytes:
    """Named arrays as bytes (NumPy's npz; never pickled)."""
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **arrays, **{_FORMAT: np.asarray(SNAPSHOT_FORMAT)})
    return buffer.getvalue()


def decode_snapshot(payload: bytes) -> dict[str, npt.NDArray[Any]]:
    """The arrays that `encode_snapshot` wrote.

    :raises SnapshotInvalid: if the bytes are not such a snapshot, or another release wrote it.
    """
    try:
        with np.load(io.BytesIO(payload), allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
        found = int(arrays.pop(_FORMAT))
    except Exception as error:
        raise SnapshotInvalid("the snapshot's bytes are damaged") from error
    if found != SNAPSHOT_FORMAT:
        raise SnapshotInvalid(f"the snapshot has format {found}, this release writes {SNAPSHOT_FORMAT}")
    return arrays


def encode_records(judge: Judge, records: list[ObservationRecord]) -> tuple[Rows, npt.NDArray[np.float64]]:
    """Logged observations as float64[N, F] and float64[N].

    :raises WorldUnavailable: if one does not fit the policy; names it.
    """
    rows = np.empty((len(records), judge.oracle.row_length))
    outcomes = np.empty(len(records))
    for place, record in enumerate(records):
        content = json.loads(record.content)
        try:
            rows[place], outcomes[place] = judge.encode_observation(
                content["context"], content["action"], content["outcome"]
            )
        except InvalidInput as error:
            raise WorldUnavailable(
                f"observation {record.sequence} ({record.observation_id}) does not fit policy "
                f"{judge.policy.name} at revision {judge.policy.revision[:12]}: {error}"
            ) from error
    return rows, outcomes


def observe_records(judge: Judge, state: Any, records: list[ObservationRecord]) -> Any:
    """Condition on logged observations in order.

    :raises WorldUnavailable: if one does not fit the policy; names it.
    """
    if not records:
        return state
    rows, outcomes = encode_records(judge, records)
    return judge.oracle.observe(state, rows, outcomes)


def restore(
    judge: Judge, store: Store, world: str, *, snapshot: bool = True, generation: int | None = None
) -> tuple[Any, int]:
    """State and revision of one world, from the newest usable snapshot and the log after it.

    Args:
        judge: the policy, compiled.
        store: where the log lies.
        world: the world's id.
        snapshot: False rebuilds from the log alone.
        generation: of the log; if not given, that of the present one when the rebuild starts.

    :raises WorldUnavailable: if the log does not fit the policy.
    :raises StoreCorrupt: if the log is damaged.
    """
    if generation is None:  # every read below must be of one log, whoever resets the world meanwhile
        head = store.head(judge.policy.name, world)
        generation = 1 if head is None else head.generation
    state, revision = judge.oracle.init(), 0
    if snapshot:
        with contextlib.suppress(SnapshotInvalid):  # the log is the truth, a snapshot only a shortcut
            state, revision = _from_snapshot(judge, store, world, generation)
    records = store.observations(judge.policy.name, world, after=revision, generation=generation)
    while chunk := list(itertools.islice(records, CHUNK)):
        state = observe_records(judge, state, chunk)
        revision = chunk[-1].sequence
    return state, revision


def _from_snapshot(judge: Judge, store: Store, world: str, generation: int) -> tuple[Any, int]:
    saved = store.latest_snapshot(judge.policy.name, world, judge.policy.revision, generation)
    if saved is None:
        raise SnapshotInvalid("there is none")
    if saved.sequence > store.observation_count(judge.policy.name, world, generation):
        raise SnapshotInvalid("it is ahead of the log")
    arrays = decode_snapshot(saved.payload)
    told = arrays.pop(_LAST, None)
    # A log that lost its end may have gone on otherwise: as long as before, and longer.
    at = next(store.observations(judge.policy.name, world, saved.sequence - 1, generation), None)
    if told is None or at is None or str(told) != at.observation_id:
        raise SnapshotInvalid("it rests on another log")
    state = judge.oracle.load(arrays)
    if judge.oracle.count(state) != saved.sequence:
        raise SnapshotInvalid(
            f"it is filed under {saved.sequence} but rests on {judge.oracle.count(state)} observations"
        )
    return state, saved.sequence


def make_snapshot(
    judge: Judge,
    world: str,
    revision: int,
    arrays: dict[str, npt.NDArray[Any]],
    *,
    last_id: str,
    generation: int = 1,
) -> Snapshot:
    """A snapshot of dumped arrays for the store.

    Args:
        judge: the policy, compiled.
        world: the world's id.
        revision: number of observations that the arrays rest on; at least 1.
        arrays: of the oracle's state.
        last_id: id of the last of those observations: by it a log that went on otherwise is known.
        generation: of the log that they are from.
    """
    payload = encode_snapshot({**arrays, _LAST: np.asarray(last_id)})
    return Snapshot(judge.policy.name, judge.policy.revision, world, revision, payload, generation)
