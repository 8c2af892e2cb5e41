"""What a suite of simulations provides, and all that the runner knows about one.

A suite is a configuration, a list of chunks of work, a pure function that runs one chunk, and a pure
function that turns the chunks' results into a tidy table. Where and in which order chunks run, and
whether some of them ran before the process was last killed, cannot change the table.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

Result: TypeAlias = Mapping[str, npt.NDArray[np.generic]]
"""What a chunk gives: named arrays of numbers or Booleans."""

Row: TypeAlias = Mapping[str, str | int | float | bool | None]
"""One line of a tidy table. Every row of a table has the same keys; None where a column does not apply."""


class SuiteConfig(BaseModel):
    """The parameters of a suite: each field is an option of the command line and a key of a config file.

    A field's description is its option's help. A field that is a tuple takes a list. Validators refuse what is
    impossible with a message that says what would be right.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of work that is run whole.

    Attributes:
        name: unique within the suite's configuration; letters, digits, `.`, `-`, `_` and `=` only (it names a file).
        spec: what to run, JSON values only.
        work: its size in some unit that is the same for all chunks (episodes, say), for the progress bar.
    """

    name: str
    spec: Mapping[str, Any]
    work: int


ConfigT = TypeVar("ConfigT", bound=SuiteConfig)


class Suite(Protocol[ConfigT]):
    """One kind of simulation, `python -m simulations NAME`."""

    name: str
    """The subcommand."""
    summary: str
    """One line for the list of subcommands."""
    config_type: type[ConfigT]
    """Its parameters."""
    work_unit: str
    """What `Chunk.work` counts, in the plural: episodes, runs."""

    def chunks(self, config: ConfigT) -> Sequence[Chunk]:
        """The work, at least one chunk, always in the same order."""
        ...

    def run(self, config: ConfigT, chunk: Chunk) -> Result:
        """Run one chunk: the same configuration and chunk give the same arrays, bit for bit."""
        ...

    def rows(self, config: ConfigT, results: Sequence[Result]) -> list[Row]:
        """The tidy table, one row a cell, from the results in the order of `chunks`."""
        ...

    def pictures(self, config: ConfigT, rows: Sequence[Row]) -> Mapping[str, bytes]:
        """Files for people to look at, by file name; the first one is the main figure. A pure function of the table."""
        ...
