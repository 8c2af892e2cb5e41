"""The command line of a suite: its options, and what becomes of its results."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import os
import signal
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from guardrail.errors import MissingExtra
from simulations.runner import execute, outputs, progress
from simulations.runner.device import DEVICES, on_device, prepare_process
from simulations.runner.errors import BadConfiguration, UnwritableOutput
from simulations.runner.folder import check_writable, open_folder, replace_file
from simulations.runner.on_ray import OnRay
from simulations.runner.options import Parser, add_options, configuration

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator, Mapping, Sequence
    from types import FrameType

    from simulations.runner.suite import Row, Suite, SuiteConfig

INTERRUPTED = 130
TERMINATED = 128 + signal.SIGTERM
HERE = Path()
"""What `--plot` alone stands for: the output folder, or the current one without it."""


def run(path: str, given: Sequence[str]) -> int:
    """Run a suite as its command line says.

    Args:
        path: where the suite is found, "module:name".
        given: the options.

    Returns:
        The exit status: 0, or 130 if interrupted.

    :raises GuardrailError: if something in the options is wrong, or the work fails.
    """
    module, _, name = path.partition(":")
    suite: Suite[Any] = getattr(importlib.import_module(module), name)
    options = _parser(suite).parse_args(given)
    fields = {field: getattr(options, field) for field in suite.config_type.model_fields}
    config = configuration(suite.config_type, fields, options.config)
    plain = config.model_dump(mode="json")
    _check_outputs(options)
    try:
        with _terminable():
            # Whatever a library prints must not get into the table.
            with contextlib.redirect_stdout(sys.stderr):
                rows = _rows(path, suite, config, plain, options)
            _write(plain, rows, options)
            if options.plot is not None:
                _draw(suite, config, rows, options)
    except KeyboardInterrupt:
        kept = f"{options.output} keeps" if options.output is not None else "with --output DIR, DIR would have kept"
        sys.stderr.write(f"interrupted; {kept} the finished part, and the same command goes on from there\n")
        return INTERRUPTED
    return 0


def _parser(suite: Suite[Any]) -> Parser:
    program = f"python -m simulations {suite.name}"
    parser = Parser(prog=program, usage=f"{program} [options]", description=suite.summary)
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
        const=HERE,
        metavar="PATH",
        help="write pictures: to the output folder, to this folder, or the main one to this .png file",
    )
    how.add_argument(
        "--ray",
        metavar="ADDRESS",
        help="run chunks on Ray: `local` starts one here, HOST:PORT is a cluster whose machines have this project",
    )
    how.add_argument("--device", choices=DEVICES, default="cpu", help="what to compute on (default: cpu)")
    how.add_argument("--quiet", action="store_true", help="show no progress")
    return parser


def _check_outputs(options: argparse.Namespace) -> None:
    """Find out before the work whether its results can be written."""
    if options.json and options.csv == "-":
        raise BadConfiguration("--json and --csv - both want standard output; choose one")
    if options.csv not in (None, "-"):
        check_writable(Path(options.csv))
    if options.plot is None:
        return
    if importlib.util.find_spec("matplotlib") is None:
        raise MissingExtra("--plot", "sim")
    if options.plot.suffix == ".png":
        check_writable(options.plot)
    elif options.plot != HERE or options.output is None:
        check_writable(options.plot / "picture.png")


def _rows(
    path: str, suite: Suite[Any], config: SuiteConfig, plain: Mapping[str, Any], options: argparse.Namespace
) -> list[Row]:
    with ExitStack() as stack:
        # With Ray this process only puts the table together.
        prepare_process("cpu" if options.ray is not None else options.device)
        if options.ray is None:
            stack.enter_context(on_device(options.device))
        folder = None
        if options.output is not None:
            folder = stack.enter_context(open_folder(options.output, suite.name, plain))
        executor: execute.Executor = execute.Local()
        if options.ray is not None:
            executor = stack.enter_context(OnRay(options.ray, path, options.device))
        teller: execute.Progress = progress.Silent()
        if not options.quiet:
            teller = stack.enter_context(progress.Bar()) if sys.stderr.isatty() else progress.Lines()
        return execute.execute(suite, config, executor, folder, teller)


def _write(plain: Mapping[str, Any], rows: Sequence[Row], options: argparse.Namespace) -> None:
    if options.output is not None:
        replace_file(options.output / "rows.csv", outputs.as_csv(rows).encode())
        replace_file(options.output / "rows.json", outputs.as_json(plain, rows).encode() + b"\n")
    if options.csv not in (None, "-"):
        replace_file(Path(options.csv), outputs.as_csv(rows).encode())
    if options.csv == "-":
        _print(outputs.as_csv(rows))
    elif options.json:
        _print(outputs.as_json(plain, rows) + "\n")
    elif options.csv is None:
        _print(outputs.as_table(rows))


def _draw(suite: Suite[Any], config: SuiteConfig, rows: Sequence[Row], options: argparse.Namespace) -> None:
    pictures = suite.pictures(config, rows)
    if options.plot.suffix == ".png":
        files = {options.plot: next(iter(pictures.values()))}
    else:
        place = (options.output or HERE) if options.plot == HERE else options.plot
        files = {place / name: content for name, content in pictures.items()}
    for file, content in files.items():
        replace_file(file, content)
        sys.stderr.write(f"wrote {file}\n")


def _print(text: str) -> None:
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        # Whoever read it has seen enough; what is left in the buffer must not fail again when Python exits.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        raise UnwritableOutput(f"cannot write to standard output: {error.strerror}") from error


@contextlib.contextmanager
def _terminable() -> Iterator[None]:
    """Leave in good order when asked to terminate: files closed, Ray shut down."""

    def leave(_signal: int, _frame: FrameType | None) -> None:
        raise SystemExit(TERMINATED)

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
