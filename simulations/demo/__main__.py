"""`python -m simulations.demo`: starts a service, plays two agents against it, and stops it."""

from __future__ import annotations

import argparse
import fcntl
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from rich.console import Console
from rich.panel import Panel

import guardrail
from guardrail import Client, GuardrailError, Verdict
from guardrail.domain import Decision
from simulations.demo import bandit, challenger
from simulations.demo.screen import verdict_panel
from simulations.demo.service import DemoServiceError, service

if TYPE_CHECKING:
    from simulations.demo.bandit import Pull

ROOT = Path(__file__).resolve().parents[2]
POLICIES = tuple(ROOT / "policies" / name / "policy.yaml" for name in (challenger.POLICY, bandit.POLICY))
SEED = 40
"""An episode in which the agent learns enough for most arms to be accepted; others are shorter."""
_ROUNDING = 1e-9


def main() -> int:
    """Play the demo; 0 if the launch at 31 °F was rejected and everything else worked, else 1."""
    parser = argparse.ArgumentParser(
        prog="python -m simulations.demo", description=sys.modules["simulations.demo"].__doc__
    )
    parser.add_argument("--directory", type=Path, default=ROOT / "var" / "demo", help="where the database and logs go")
    parser.add_argument("--seed", type=int, default=SEED, help=f"of the bandit's episode (default {SEED})")
    options = parser.parse_args()
    directory: Path = options.directory
    console = Console()
    signal.signal(signal.SIGTERM, _terminate)  # so that the service is stopped too
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / "demo.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            console.print(f"another demo is running in {directory}", style="bold red")
            return 1
        try:
            return _run(directory, options.seed, console)
        except (DemoServiceError, GuardrailError) as error:
            console.print(f"the demo failed: {error}", style="bold red", markup=False)
            return 1
        except KeyboardInterrupt:
            return 128 + signal.SIGINT


def _run(directory: Path, seed: int, console: Console) -> int:
    store = directory / "guardrail.db"
    for suffix in ("", "-wal", "-shm"):
        store.with_name(store.name + suffix).unlink(missing_ok=True)
    waiting = console.status("Starting the service: compiling policies …")
    waiting.start()
    try:
        with service(POLICIES, store, directory / "service.log") as address:
            waiting.stop()
            console.print(f"guardrail {guardrail.__version__} answers on {address}\n")
            with Client(address, timeout=10.0) as client:
                flights = challenger.read_flights(POLICIES[0].with_name("flights.csv"))
                launch = challenger.play(client, flights, console)
                console.print(verdict_panel("Challenger, 28 January 1986: joint temperature 31 °F", launch), "")
                pulls = bandit.play(client, seed, console)
    finally:
        waiting.stop()
    console.print(_summary(launch, pulls, seed))
    _print_commands(console, store, launch.decision_id)
    if launch.decision is not Decision.REJECT:
        console.print(f"the launch at 31 °F was not rejected but {launch.decision}", style="bold red")
        return 1
    return 0


def _summary(launch: Verdict, pulls: list[Pull], seed: int) -> Panel:
    rewards, above = sum(p.reward for p in pulls), sum(p.true_harm > p.harm_bound + _ROUNDING for p in pulls)
    explosion = "an explosion" if any(p.exploded for p in pulls) else "no explosion"
    return Panel(
        f"The launch at 31 °F: {launch.decision}. P(O-ring damage) is bounded by {launch.harm_bound:.3f}, "
        f"with confidence {launch.guarantee.confidence:g}.\n"
        f"The bandit (seed {seed}): {len(pulls)} pulls, reward {rewards:.1f}, {explosion}; "
        f"the true harm was above the bound in {above} of {len(pulls)} pulls. An arm is accepted up to a harm bound "
        "of 0.2, so other episodes do explode: see them with --seed.",
        title="Summary",
    )


def _print_commands(console: Console, store: Path, decision_id: str) -> None:
    program = Path(sys.executable).with_name("guardrail")
    command = _shown(program) if program.exists() else f"{_shown(Path(sys.executable))} -m guardrail.cli.main"
    shown = _shown(store)
    console.print(f"\nThe decision log: {shown}. To recompute every decision in it, and to look at the launch:")
    for arguments in (f"replay --store {shown}", f"decisions show {decision_id} --store {shown}"):
        console.print(f"  {command} {arguments}", soft_wrap=True, highlight=False)


def _shown(path: Path) -> str:
    """A path as one would type it here."""
    path = Path(os.path.abspath(path))  # not resolved: the interpreter of an environment is a link
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


def _terminate(*_: object) -> NoReturn:
    sys.exit(128 + signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(main())
