"""Running a suite: the chunks that are not there yet, here or on Ray, and then the table."""

from __future__ import annotations

import re
import traceback
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import numpy as np

from simulations.runner.errors import BadConfiguration, ChunkFailed, SimulationError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from simulations.runner.folder import Folder
    from simulations.runner.suite import Chunk, Result, Row, Suite, SuiteConfig

    ConfigT = TypeVar("ConfigT", bound=SuiteConfig)

_CHUNK_NAME = re.compile(r"[A-Za-z0-9._=-]+")


class Executor(Protocol):
    """Where chunks run."""

    def results(self, suite: Suite[Any], config: SuiteConfig, chunks: Sequence[Chunk]) -> Iterator[tuple[int, Result]]:
        """The place in `chunks` and the result of each chunk, each exactly once, in any order.

        :raises SimulationError: if one cannot be computed.
        """
        ...


class Progress(Protocol):
    """Who is told how far the work is."""

    def start(self, chunks: int, all_chunks: int, done: int, total: int, unit: str) -> None:
        """The work begins; so many of its chunks, `done` of `total` units, were there already."""
        ...

    def advance(self, work: int) -> None:
        """So many more units are done."""
        ...


class Local:
    """Chunks run one after the other in this process."""

    def results(self, suite: Suite[Any], config: SuiteConfig, chunks: Sequence[Chunk]) -> Iterator[tuple[int, Result]]:
        """See `Executor.results`."""
        for place, chunk in enumerate(chunks):
            yield place, run_chunk(suite, config, chunk)


def execute(
    suite: Suite[ConfigT], config: ConfigT, executor: Executor, folder: Folder | None, progress: Progress
) -> list[Row]:
    """The suite's table, in plain Python values.

    Args:
        suite: what to run.
        config: its parameters.
        executor: where to run it.
        folder: where results are kept and found again; None to keep none.
        progress: who is told.

    :raises SimulationError: if the configuration leaves nothing to run, a stored result is damaged, or one
        cannot be computed or stored.
    """
    chunks = _chunks(suite, config)
    results: dict[int, Result] = {}
    for place, chunk in enumerate(chunks):
        if folder is not None and folder.has(chunk.name):
            results[place] = folder.read(chunk.name)
    missing = [place for place in range(len(chunks)) if place not in results]
    done, total = (sum(chunks[place].work for place in places) for places in (results, range(len(chunks))))
    progress.start(len(results), len(chunks), done, total, suite.work_unit)
    for order, result in executor.results(suite, config, [chunks[place] for place in missing]):
        place = missing[order]
        if folder is not None:
            folder.write(chunks[place].name, result)
        results[place] = result
        progress.advance(chunks[place].work)
    rows = suite.rows(config, [results[place] for place in range(len(chunks))])
    return [{name: _plain(value) for name, value in row.items()} for row in rows]


def run_chunk(suite: Suite[Any], config: SuiteConfig, chunk: Chunk) -> Result:
    """Run one chunk.

    :raises ChunkFailed: if it raises any error.
    """
    try:
        return suite.run(config, chunk)
    except SimulationError:
        raise
    except Exception as error:
        frame = traceback.extract_tb(error.__traceback__)[-1]
        what = " ".join(f"{type(error).__name__}: {error}".split())
        raise ChunkFailed(f"chunk {chunk.name} failed: {what} ({frame.filename}:{frame.lineno})") from error


def _chunks(suite: Suite[ConfigT], config: ConfigT) -> Sequence[Chunk]:
    try:
        chunks = suite.chunks(config)
    except ValueError as error:
        raise BadConfiguration(" ".join(str(error).split())) from error
    names = [chunk.name for chunk in chunks]
    if not names or len(set(names)) < len(names) or not all(_CHUNK_NAME.fullmatch(name) for name in names):
        raise ValueError(f"the suite {suite.name} breaks its contract: chunks need names of their own, got {names}")
    return chunks


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value
