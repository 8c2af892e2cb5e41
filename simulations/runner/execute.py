"""Running a suite: the chunks that are not there yet, here or on Ray, and then the table."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from simulations.runner.folder import Folder
    from simulations.runner.suite import Chunk, Result, Row, Suite, SuiteConfig

    ConfigT = TypeVar("ConfigT", bound=SuiteConfig)


class Executor(Protocol):
    """Where chunks run."""

    def results(self, suite: Suite[Any], config: SuiteConfig, chunks: Sequence[Chunk]) -> Iterator[tuple[int, Result]]:
        """The place in `chunks` and the result of each chunk, each exactly once, in any order."""
        ...


class Progress(Protocol):
    """Who is told how far the work is."""

    def start(self, done: int, total: int, unit: str) -> None:
        """The work begins, `done` units of which were there already."""
        ...

    def advance(self, work: int) -> None:
        """So many more units are done."""
        ...


class Local:
    """Chunks run one after the other in this process."""

    def results(self, suite: Suite[Any], config: SuiteConfig, chunks: Sequence[Chunk]) -> Iterator[tuple[int, Result]]:
        """See `Executor.results`."""
        for place, chunk in enumerate(chunks):
            yield place, suite.run(config, chunk)


def execute(
    suite: Suite[ConfigT], config: ConfigT, executor: Executor, folder: Folder | None, progress: Progress
) -> list[Row]:
    """The suite's table.

    Args:
        suite: what to run.
        config: its parameters.
        executor: where to run it.
        folder: where results are kept and found again; None to keep none.
        progress: who is told.

    :raises SimulationError: if a stored result is damaged, or one cannot be computed or stored.
    """
    chunks = suite.chunks(config)
    results: dict[int, Result] = {}
    for place, chunk in enumerate(chunks):
        if folder is not None and folder.has(chunk.name):
            results[place] = folder.read(chunk.name)
    missing = [place for place in range(len(chunks)) if place not in results]
    done = sum(chunks[place].work for place in results)
    progress.start(done, sum(chunk.work for chunk in chunks), suite.work_unit)
    for order, result in executor.results(suite, config, [chunks[place] for place in missing]):
        place = missing[order]
        if folder is not None:
            folder.write(chunks[place].name, result)
        results[place] = result
        progress.advance(chunks[place].work)
    return suite.rows(config, [results[place] for place in range(len(chunks))])
