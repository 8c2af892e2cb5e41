"""`python -m simulations SUITE`: run a suite of simulations. Only the suite that is asked for is imported."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, NamedTuple

from guardrail.errors import GuardrailError, MissingExtra

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

MISTAKE, INTERRUPTED = 2, 130


class Entry(NamedTuple):
    """A suite that can be asked for."""

    path: str
    """Where it is found, "module:name"."""
    summary: str
    """Its own `summary`, without importing it."""


SUITES = {
    "noniid": Entry(
        "simulations.noniid.suite:SUITE",
        "reward and explosions of an agent in the exploding bandit under each guardrail (the paper's figure 1)",
    ),
    "tightness": Entry(
        "simulations.tightness.suite:SUITE",
        "how far the bounds lie above the true harm, and whether they hold (the paper's figure 2)",
    ),
    "iid": Entry(
        "simulations.iid.suite:SUITE",
        "from when on the cautious bound holds for good, with independent observations",
    ),
    "validate": Entry(
        "simulations.validation.suite:SUITE",
        "how often any bound was below the true harm, against what its theorem promises",
    ),
    "gridworlds": Entry(
        "simulations.gridworlds.suite:SUITE",
        "falls of walkers in FrozenLake and CliffWalking, with and without a guardrail around them",
    ),
}


def main(arguments: Sequence[str] | None = None, suites: Mapping[str, Entry] = SUITES) -> int:
    """Run the command line.

    Args:
        arguments: what follows the program's name; those of the process if None.
        suites: what can be asked for, by name.

    Returns:
        0; 2 after a mistake or a failure, told in one sentence on stderr; 130 if interrupted.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    if not given or given[0] in ("-h", "--help"):
        print(_usage(suites))  # noqa: T201
        return 0
    try:
        from simulations.runner.command import run

        return run(_entry(given[0], suites).path, given[1:])
    except ModuleNotFoundError as error:
        if (error.name or "simulations").partition(".")[0] in ("guardrail", "simulations"):
            raise
        return _tell(MissingExtra(f"the suite {given[0]}, which uses {error.name},", "server,sim"))
    except GuardrailError as error:
        return _tell(error)
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        return INTERRUPTED


def _entry(name: str, suites: Mapping[str, Entry]) -> Entry:
    if name not in suites:
        from guardrail.policy.expressions import suggest
        from simulations.runner.errors import BadConfiguration

        raise BadConfiguration(f"there is no suite {name!r}; {suggest(name, list(suites))}")
    return suites[name]


def _usage(suites: Mapping[str, Entry]) -> str:
    width = max(map(len, suites))
    return "\n".join(
        [
            "usage: python -m simulations SUITE [options]",
            "",
            "suites:",
            *(f"  {name:<{width}}  {entry.summary}" for name, entry in suites.items()),
            "",
            "`python -m simulations SUITE --help` lists a suite's options;",
            "`python -m simulations.demo` plays two agents against a real service.",
        ]
    )


def _tell(error: GuardrailError) -> int:
    sys.stderr.write(f"error [{error.reason}]: {error}\n")
    return MISTAKE


if __name__ == "__main__":
    sys.exit(main())
