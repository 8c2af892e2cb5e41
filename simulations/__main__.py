"""`python -m simulations SUITE`: run a suite of simulations."""

from __future__ import annotations

import argparse
import contextlib
import importlib
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from guardrail.errors import GuardrailError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from simulations.runner.suite import Row, Suite, SuiteConfig

SUITES = {
    "noniid": "simulations.noniid.suite:SUITE",
    "tightness": "simulations.tightness.suite:SUITE",
    "iid": "simulations.iid.suite:SUITE",
    "validate": "simulations.validation.suite:SUITE",
}
"""Where each suite is found; a suite is imported only if it is asked for."""
SUMMARIES = {
    "noniid": "reward and explosions in the exploding bandit under each guardrail (the paper's figure 1)",
    "tightness": "how far the bounds lie above the true harm, and whether they hold (the paper's figure 2)",
    "iid": "from when on the cautious bound holds for good, with independent observations",
    "validate": "how often each bound fails against its promise, under benign and adversarial agents",
}
INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None, suites: Mapping[str, str] = SUITES) -> int:
    """Run the command line and return its exit status: 0, 2 for a mistake, 130 if interrupted."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if not given or given[0] in ("-h", "--help"):
        lines = [f"  {name:<10} {SUMMARIES.get(name, '')}" for name in suites]
        print("usage: python -m simulations SUITE [options]; SUITE --help lists them\n", *lines, sep="\n")  # noqa: T201
        return 0 if given else 2
    if given[0] not in suites:
        sys.stderr.write(f"error [BAD_CONFIGURATION]: no suite {given[0]}; there are {', '.join(suites)}\n")
        return 2
    try:
        return _run(suites[given[0]], given[1:])
    except GuardrailError as error:
        sys.stderr.write(f"error [{error.reason}]: {error}\n")
        return 2
    except KeyboardInterrupt:
        sys.stderr.write("interrupted; with --output the same command goes on where it stopped\n")
        return INTERRUPTED


def _run(path: str, given: Sequence[str]) -> int:
    from simulations.runner.options import configuration

    module, _, name = path.partition(":")
    suite: Suite[Any] = getattr(importlib.import_module(module), name)
    options = _parser(suite).parse_args(given)
    fields = {field: getattr(options, field) for field in suite.config_type.model_fields}
    config = configuration(suite.config_type, fields, options.config)
    plain = config.model_dump(mode="json")
    _check_outputs(options)
    rows = _rows(path, suite, config, plain, options)
    _write(suite, config, plain, rows, options)
    return 0


def _parser(suite: Suite[Any]) -> argparse.ArgumentParser:
    from simulations.runner.device import DEVICES
    from simulations.runner.options import add_options

    parser = argparse.ArgumentParser(prog=f"python -m simulations {suite.name}", description=suite.summary)
    add_options(parser.add_argument_group("what to simulate"), suite.config_type)
    how = parser.add_argument_group("how to run it, and what to do with the results")
    how.add_argument("--config", type=Path, metavar="FILE", help="YAML with any of the parameters above; options win")
    how.add_argument("--output", type=Path, metavar="DIR", help="keep results here, and go on where a run stopped")
    how.add_argument("--csv", metavar="FILE", help="write the table as CSV, a row a cell; - for standard output")
    how.add_argument("--json", action="store_true", help="print {config, rows} on standard output and nothing else")
    how.add_argument(
        "--plot",
        nargs="?",
        type=Path,
        const=Path(),
        metavar="PATH",
        help="write pictures: to the output folder, to this folder, or the main one to this .png file",
    )
    how.add_argument("--ray", metavar="ADDRESS", help="run chunks on Ray at this address; local starts one here")
    how.add_argument("--device", choices=DEVICES, default="cpu", help="what to compute on (default: cpu)")
    how.add_argument("--quiet", action="store_true", help="show no progress")
    return parser


def _check_outputs(options: argparse.Namespace) -> None:
    """Find out before the work whether its results can be written."""
    from simulations.runner.errors import BadConfiguration
    from simulations.runner.folder import check_writable

    if options.json and options.csv == "-":
        raise BadConfiguration("--json and --csv - both want standard output; choose one")
    if options.csv not in (None, "-"):
        check_writable(Path(options.csv))
    if options.plot not in (None, Path()):
        is_picture = options.plot.suffix == ".png"
        check_writable(options.plot if is_picture else options.plot.absolute() / "picture")


def _rows(
    path: str, suite: Suite[Any], config: SuiteConfig, plain: Mapping[str, Any], options: argparse.Namespace
) -> list[Row]:
    from simulations.runner import execute, progress
    from simulations.runner.device import keep_programs, on_device
    from simulations.runner.folder import open_folder
    from simulations.runner.on_ray import OnRay

    with ExitStack() as stack:
        folder = None
        if options.output is not None:
            folder = stack.enter_context(open_folder(options.output, suite.name, plain))
        teller: execute.Progress = progress.Silent()
        if not options.quiet:
            teller = stack.enter_context(progress.Bar()) if sys.stderr.isatty() else progress.Lines()
        executor: execute.Executor
        if options.ray is not None:
            executor = OnRay(options.ray, path, options.device)
        else:
            keep_programs()
            stack.enter_context(on_device(options.device))
            executor = execute.Local()
        return execute.execute(suite, config, executor, folder, teller)


def _write(
    suite: Suite[Any],
    config: SuiteConfig,
    plain: Mapping[str, Any],
    rows: Sequence[Row],
    options: argparse.Namespace,
) -> None:
    from simulations.runner import outputs
    from simulations.runner.folder import replace_file

    if options.output is not None:
        replace_file(options.output / "rows.csv", outputs.as_csv(rows).encode())
        replace_file(options.output / "rows.json", outputs.as_json(plain, rows).encode() + b"\n")
    if options.plot is not None:
        pictures = suite.pictures(config, rows)
        if options.plot.suffix == ".png":
            pictures = {options.plot.name: next(iter(pictures.values()))}
            place = options.plot.parent
        else:
            place = (options.output or Path()) if options.plot == Path() else options.plot
        for name, content in pictures.items():
            replace_file(place / name, content)
            sys.stderr.write(f"{place / name}\n")
    if options.csv not in (None, "-"):
        replace_file(Path(options.csv), outputs.as_csv(rows).encode())
    with contextlib.suppress(BrokenPipeError):
        if options.csv == "-":
            sys.stdout.write(outputs.as_csv(rows))
        elif options.json:
            sys.stdout.write(outputs.as_json(plain, rows) + "\n")
        elif options.csv is None:
            outputs.show(rows)


if __name__ == "__main__":
    sys.exit(main())
