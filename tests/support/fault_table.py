"""The table of faults: how each is injected, what callers see, what shows it, and what to do.

`python tests/support/fault_table.py` writes docs/faults.md from it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from unittest import mock

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [] if "guardrail" in sys.modules else [str(ROOT)]

from fault_stage import Clock, Hold, no_room, reason_of  # noqa: E402
from running_service import POLICY  # noqa: E402

from guardrail.errors import StoreCorrupt, StoreError  # noqa: E402
from guardrail.oracles.enumerated import EnumeratedOracle  # noqa: E402
from guardrail.server.world import World  # noqa: E402
from guardrail.store.feed import PostgresFeed  # noqa: E402


@dataclasses.dataclass(frozen=True)
class Sign:
    """A metric that shows a fault.

    Attributes:
        name: of the metric.
        labels: of the one that shows it.
        value: what it then is; "rises" if it grows, "> 0" if it is no longer 0.
    """

    name: str
    value: str | float
    labels: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def holds(self, before: float, now: float) -> bool:
        """True if the metric shows it."""
        return now > before if self.value == "rises" else now > 0 if self.value == "> 0" else now == self.value

    def __str__(self) -> str:
        labels = ",".join(f'{name}="{value}"' for name, value in self.labels.items())
        shown = f"`{self.name}{{{labels}}}`" if labels else f"`{self.name}`"
        return f"{shown} {self.value if isinstance(self.value, str) else f'is {self.value:g}'}"


@dataclasses.dataclass(frozen=True)
class Fault:
    """One row.

    Attributes:
        name: of the row, for the test's id.
        about: what happens.
        inject: a context manager that makes it happen to a stage and lifts it in the end.
        checks: reasons with which checks fail; each is seen.
        reports: reasons with which reports fail; each is seen.
        rejected: reason codes of verdicts; each is seen.
        notices: codes of notices in verdicts; each is seen.
        goes_on: what is answered all the while: checks, reports.
        also: reasons that calls may fail with on the way, for instance while a service restarts.
        signs: metrics that show it.
        shown: what else shows it, in words.
        remedy: what to do.
        options: settings of the service.
        load: options of the load.
        proxied: True if the load's connections can be cut.
        postgres: True if the store is a PostgreSQL server of the row's own.
    """

    name: str
    about: str
    inject: Callable[[Any], Any]
    remedy: str
    checks: tuple[str, ...] = ()
    reports: tuple[str, ...] = ()
    rejected: tuple[str, ...] = ()
    notices: tuple[str, ...] = ()
    goes_on: tuple[str, ...] = ()
    also: frozenset[str] = frozenset()
    signs: tuple[Sign, ...] = ()
    shown: str = ""
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    load: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    proxied: bool = False
    postgres: bool = False

    def seen_by_callers(self) -> str:
        """What callers see, in words."""
        parts = []
        for who, reasons in (("checks", self.checks), ("reports", self.reports)):
            if reasons:
                parts.append(f"{who}: {' or '.join(f'`{r}`' for r in reasons)}")
            elif who in self.goes_on:
                parts.append(f"{who} go on")
        parts += [f"rejections with `{code}`" for code in self.rejected]
        parts += [f"verdicts with the notice `{code}`" for code in self.notices]
        return "; ".join(parts)


HEALTH = "guardrail_health"
DOWN = Sign(HEALTH, 0, {"service": ""})
RESTARTING = frozenset({"UNREACHABLE", "NOT_SERVING", "CANCELLED", "DEADLINE_EXCEEDED"})


class EndOfThread(BaseException):
    """What no handler of the service expects, as SystemExit is."""


# ---------------------------------------------------------------- how faults are injected


def engine(change, method="bound"):
    """The oracle's bounds, or what takes up outcomes, changed by `change(real, oracle, ...)`."""

    @contextlib.contextmanager
    def inject(stage):
        real = getattr(EnumeratedOracle, method)
        with mock.patch.object(EnumeratedOracle, method, lambda self, *a: change(real, self, *a)):
            yield

    return inject


def raises(real, oracle, *arguments):
    raise RuntimeError("the engine failed")


def valued(value):
    def change(real, oracle, *arguments):
        return [dataclasses.replace(bound, value=value) for bound in real(oracle, *arguments)]

    return change


def one_too_many(real, oracle, *arguments):
    bounds = real(oracle, *arguments)
    return [*bounds, bounds[0]]


def slow(seconds):
    def change(real, *arguments, **options):
        threading.Event().wait(seconds)
        return real(*arguments, **options)

    return change


@contextlib.contextmanager
def engine_hangs(stage):
    hold, real = Hold(), EnumeratedOracle.bound

    def wait(self, *arguments):
        hold.wait()
        return real(self, *arguments)

    with mock.patch.object(EnumeratedOracle, "bound", wait):
        try:
            yield
        finally:
            hold.let_go()


def store(**faults):
    """The store's methods, replaced by name."""

    @contextlib.contextmanager
    def inject(stage):
        stage.faults.update(faults)
        yield
        stage.faults.clear()

    return inject


def store_hangs(*methods):
    @contextlib.contextmanager
    def inject(stage):
        hold = Hold()

        def wait(real, *arguments, **options):
            hold.wait()
            return real(*arguments, **options)

        stage.faults.update(dict.fromkeys(methods, wait))
        try:
            yield
        finally:
            stage.faults.clear()
            hold.let_go()

    return inject


@contextlib.contextmanager
def reads_fail(stage):
    stage.faults.update(dict.fromkeys(("worlds", "decision", "observations"), no_room))
    with stage.client() as client:
        assert reason_of(lambda: list(client.worlds("coin"))) == "STORE_UNAVAILABLE"
        assert reason_of(lambda: client.decision("0" * 32)) == "STORE_UNAVAILABLE"
    yield
    stage.faults.clear()


@contextlib.contextmanager
def clock_jumps(stage):
    clock, modules = Clock(), [m for name, m in sys.modules.items() if name.startswith("guardrail.")]
    with contextlib.ExitStack() as stack:
        for module in modules:
            if vars(module).get("time") is time:
                stack.enter_context(mock.patch.object(module, "time", clock))
        for hours in (7, -7, 0.1):
            clock.offset = hours * 3_600.0
            stage.load.progress()
        yield


def at_restart(damage, mend=None):
    """The service stops, its database is damaged, and it starts again; later the damage is mended."""

    @contextlib.contextmanager
    def inject(stage):
        stage.stop()
        with stage.sql() as connection:
            damage(connection)
        stage.start()
        yield
        if mend is not None:
            stage.stop()
            with stage.sql() as connection:
                mend(connection)
            stage.start()

    return inject


def damage_snapshots(connection):
    assert connection.execute("SELECT count(*) FROM snapshots").fetchone()[0] > 0
    connection.execute("UPDATE snapshots SET payload = zeroblob(length(payload))")


_CONTENT = "UPDATE observations SET content = replace(content, ?, ?) WHERE sequence = 1 AND world_id = (SELECT id FROM "
_CONTENT += "worlds WHERE world = 'w1')"


def damage_an_observation(connection):
    connection.execute("DELETE FROM snapshots")  # a world with a snapshot is right without the rows before it
    assert connection.execute(_CONTENT, ("hurt", "hart")).rowcount == 1


def mend_the_observation(connection):
    connection.execute(_CONTENT, ("hart", "hurt"))


@contextlib.contextmanager
def database_is_cut_short(stage):
    stage.stop()
    path = Path(stage.database)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2 - 100])
    refused = False
    try:
        stage.start()
    except StoreCorrupt:
        refused = True
    assert refused, "a service started on half a database"
    yield
    path.write_bytes(whole)
    stage.start()


@contextlib.contextmanager
def kernel_thread_ends(stage):
    def end(self, *arguments):
        raise EndOfThread

    with mock.patch.object(World, "_bound", end):
        yield
    stage.stop()
    stage.start()


@contextlib.contextmanager
def writer_thread_ends(stage):
    def end(real, *arguments):
        raise EndOfThread

    stage.faults["append_observations"] = end
    yield
    stage.faults.clear()
    stage.stop()
    stage.start()


@contextlib.contextmanager
def service_is_gone(stage):
    stage.stop()
    yield
    stage.start()


@contextlib.contextmanager
def connections_are_cut(stage):
    hold, real = Hold(), EnumeratedOracle.bound

    def wait(self, *arguments):
        hold.wait()
        return real(self, *arguments)

    with mock.patch.object(EnumeratedOracle, "bound", wait):
        stage.load.wait_for(lambda: stage.metric("guardrail_waiting_checks", {}) > 0)
        stage.proxy.cut()
        hold.let_go()
    yield


@contextlib.contextmanager
def broken_policy(stage):
    stage.policy.write_text(POLICY.replace("delta: 0.05", "delta: 5"))
    with stage.client() as client:
        assert reason_of(client.reload_policies) == "POLICY_INVALID"
        yield
        stage.policy.write_text(POLICY)
        client.reload_policies()


@contextlib.contextmanager
def reloads(stage):
    with stage.client() as client:
        for delta in ("0.04", "0.03", "0.05") * 2:
            stage.policy.write_text(POLICY.replace("delta: 0.05", f"delta: {delta}"))
            assert client.reload_policies().changed == ("coin",)
        stage.load.progress()
    yield


@contextlib.contextmanager
def database_server_is_gone(stage):
    stage.postgres.stop("immediate")
    yield
    stage.postgres.start()


@contextlib.contextmanager
def changes_are_not_heard(stage):
    def lost(self, timeout):
        raise StoreError("the connection that listens is lost")

    with mock.patch.object(PostgresFeed, "next", lost):
        yield


# ---------------------------------------------------------------- the table

FAULTS = [
    Fault(
        "engine-raises",
        "the computation of a harm bound raises",
        engine(raises),
        checks=("WORLD_UNAVAILABLE",),
        goes_on=("reports",),
        signs=(Sign("guardrail_kernel_failures_total", "rises"),),
        remedy="a defect: read the log (`kernel_failed`) and report it",
    ),
    Fault(
        "engine-cannot-observe",
        "taking up an outcome raises",
        engine(raises, "observe"),
        checks=("WORLD_UNAVAILABLE",),
        reports=("WORLD_UNAVAILABLE",),
        signs=(Sign("guardrail_worlds", "> 0", {"state": "failed"}), Sign("guardrail_kernel_failures_total", "rises")),
        remedy="a defect: read the log (`world_failed`); the world is rebuilt from its log when it is reported to",
    ),
    Fault(
        "engine-nan",
        "a harm bound is NaN",
        engine(valued(math.nan)),
        rejected=("NUMERICAL_FAILURE",),
        goes_on=("reports",),
        signs=(Sign("guardrail_checks_total", "rises", {"policy": "coin", "decision": "reject"}),),
        remedy="look at the policy's numbers with `guardrail policy lint`; else a defect: report it",
    ),
    Fault(
        "engine-out-of-range",
        "a harm bound is below 0 or above 1",
        engine(valued(-0.01)),
        rejected=("NUMERICAL_FAILURE",),
        goes_on=("reports",),
        signs=(Sign("guardrail_checks_total", "rises", {"policy": "coin", "decision": "reject"}),),
        remedy="a defect: report it",
    ),
    Fault(
        "engine-wrong-shape",
        "a kernel gives another number of bounds than it was asked for",
        engine(one_too_many),
        checks=("WORLD_UNAVAILABLE",),
        goes_on=("reports",),
        signs=(Sign("guardrail_kernel_failures_total", "rises"),),
        remedy="a defect: report it",
    ),
    Fault(
        "engine-hangs",
        "a kernel call does not come back",
        engine_hangs,
        checks=("DEADLINE_EXCEEDED",),
        reports=("DEADLINE_EXCEEDED",),
        signs=(DOWN, Sign("guardrail_waiting_checks", "> 0")),
        also=frozenset({"OVERLOADED"}),
        options={"stall_seconds": 0.5},
        load={"timeout": 0.7},
        remedy="restart the service; give large classes more time or a smaller class",
    ),
    Fault(
        "deadline-passed",
        "a check's turn comes after its caller's deadline",
        engine(slow(0.5)),
        checks=("DEADLINE_EXCEEDED",),
        signs=(Sign("guardrail_checks_without_verdict_total", "rises", {"reason": "DEADLINE_EXCEEDED"}),),
        also=frozenset({"DEADLINE_EXCEEDED"}),
        load={"timeout": 0.3},
        remedy="raise the client's timeout, or lower the load",
    ),
    Fault(
        "checks-queue-full",
        "more checks arrive than are taken on",
        engine_hangs,
        checks=("OVERLOADED",),
        signs=(Sign("guardrail_checks_without_verdict_total", "rises", {"reason": "OVERLOADED"}),),
        also=frozenset({"DEADLINE_EXCEEDED"}),
        options={"max_checks_in_flight": 2},
        load={"timeout": 2.0, "worlds": ("w0",), "checkers": 6},
        remedy="lower the load or add replicas",
    ),
    Fault(
        "reports-queue-full",
        "too many reports wait for a store that hangs",
        store_hangs("append_observations"),
        reports=("OVERLOADED", "DEADLINE_EXCEEDED"),
        goes_on=("checks",),
        signs=(
            Sign("guardrail_refusals_total", "rises", {"reason": "OVERLOADED"}),
            Sign("guardrail_waiting_reports", "> 0"),
        ),
        options={"max_waiting_reports": 4},
        load={"timeout": 1.0, "reporters": 8},
        remedy="look at the store; report again with the same ids",
    ),
    Fault(
        "decisions-queue-full",
        "too many decisions wait for a store that hangs",
        store_hangs("append_decisions"),
        checks=("DECISION_LOG_UNAVAILABLE",),
        reports=("DEADLINE_EXCEEDED",),
        signs=(
            Sign("guardrail_unwritten_decisions", "> 0"),
            Sign("guardrail_checks_without_verdict_total", "rises", {"reason": "DECISION_LOG_UNAVAILABLE"}),
        ),
        options={"max_unwritten_decisions": 3},
        load={"timeout": 1.0},
        remedy="look at the store",
    ),
    Fault(
        "disk-full-for-reports",
        "the store cannot take reports, for instance because the disk is full",
        store(append_observations=no_room),
        reports=("STORE_UNAVAILABLE",),
        goes_on=("checks",),
        signs=(DOWN, Sign("guardrail_report_commits_failed_total", "rises")),
        remedy="free some space; the service goes on by itself; report again with the same ids",
    ),
    Fault(
        "disk-full-for-decisions",
        "the store cannot take decisions",
        store(append_decisions=no_room),
        checks=("DECISION_LOG_UNAVAILABLE",),
        goes_on=("reports",),
        signs=(
            Sign("guardrail_decision_log_failing", 1),
            Sign("guardrail_decision_writes_failed_total", "rises"),
            Sign(HEALTH, 0, {"service": "guardrail.decision-log"}),
        ),
        remedy="free some space; the decisions that wait are then written, and checks go on",
    ),
    Fault(
        "store-cannot-be-read",
        "the store cannot be read",
        reads_fail,
        goes_on=("checks", "reports"),
        signs=(
            Sign("guardrail_refusals_total", "> 0", {"reason": "STORE_UNAVAILABLE"}),
            Sign("guardrail_calibration_waiting_worlds", "> 0"),
        ),
        shown="listing worlds and reading decisions fail with `STORE_UNAVAILABLE`",
        remedy="look at the store",
    ),
    Fault(
        "slow-disk",
        "every transaction takes very long",
        store(append_observations=slow(0.4), append_decisions=slow(0.4)),
        goes_on=("checks", "reports"),
        signs=(Sign("guardrail_waiting_reports", "> 0"), Sign("guardrail_unwritten_decisions", "> 0")),
        shown="reports take longer (`guardrail_call_seconds`); checks do not wait for the disk",
        remedy="look at the disk",
    ),
    Fault(
        "clock-jumps",
        "the wall clock jumps hours forward and back",
        clock_jumps,
        goes_on=("checks", "reports"),
        signs=(Sign("guardrail_checks_total", "rises", {"policy": "coin", "decision": "reject"}),),
        shown="nothing but the timestamps of the logs: deadlines and order do not depend on the wall clock",
        remedy="set the clock right",
    ),
    Fault(
        "snapshot-damaged",
        "at the start a snapshot is damaged",
        at_restart(damage_snapshots),
        goes_on=("checks", "reports"),
        also=RESTARTING,
        signs=(Sign("guardrail_worlds", 3, {"state": "serving"}),),
        shown="the start takes longer: worlds are rebuilt from their whole logs",
        options={"snapshot_every": 5},
        remedy="nothing; look at the disk",
    ),
    Fault(
        "observation-damaged",
        "at the start an observation of a world's log is damaged",
        at_restart(damage_an_observation, mend_the_observation),
        checks=("WORLD_UNAVAILABLE",),
        reports=("WORLD_UNAVAILABLE",),
        also=RESTARTING,
        signs=(Sign("guardrail_worlds", 1, {"state": "broken"}), Sign("guardrail_worlds", 2, {"state": "serving"})),
        shown="only that world; the log names it (`world_not_restored`)",
        remedy="restore the database from a backup, or reset the world",
    ),
    Fault(
        "database-cut-short",
        "at the start the database is half of what it was",
        database_is_cut_short,
        checks=("UNREACHABLE",),
        reports=("UNREACHABLE",),
        also=RESTARTING,
        shown="the service does not start and says why; exit status 3",
        remedy="restore the database from a backup",
    ),
    Fault(
        "kernel-thread-ends",
        "the thread that computes ends",
        kernel_thread_ends,
        checks=("NOT_SERVING",),
        reports=("NOT_SERVING",),
        also=RESTARTING,
        signs=(DOWN,),
        shown="the log has `kernel_thread_ended`",
        remedy="restart the service (a liveness probe on health does)",
    ),
    Fault(
        "writer-thread-ends",
        "the thread that writes to the store ends",
        writer_thread_ends,
        checks=("DECISION_LOG_UNAVAILABLE",),
        reports=("STORE_UNAVAILABLE",),
        also=RESTARTING,
        signs=(DOWN, Sign("guardrail_decision_log_failing", 1)),
        shown="the log has `writer_thread_ended`",
        remedy="restart the service (a liveness probe on health does)",
    ),
    Fault(
        "service-gone",
        "no service answers",
        service_is_gone,
        checks=("UNREACHABLE",),
        reports=("UNREACHABLE",),
        also=RESTARTING,
        shown="nothing is there to be scraped: Prometheus' own `up` is 0",
        remedy="start the service; clients find it again by themselves",
    ),
    Fault(
        "connection-cut",
        "the connection breaks in the middle of a call",
        connections_are_cut,
        goes_on=("checks", "reports"),
        also=RESTARTING,
        signs=(Sign("guardrail_checks_without_verdict_total", "rises", {"reason": "CANCELLED"}),),
        shown="clients try again within their timeout; the report that was sent twice counts once",
        proxied=True,
        remedy="nothing",
    ),
    Fault(
        "policy-broken-at-reload",
        "a reload finds a policy that is wrong",
        broken_policy,
        notices=("POLICY_STALE",),
        goes_on=("checks", "reports"),
        signs=(
            Sign("guardrail_reloads_total", "rises", {"result": "failure"}),
            Sign("guardrail_policies_stale_since_seconds", "> 0"),
            Sign(HEALTH, 0, {"service": "guardrail.policies"}),
        ),
        shown="the last good policies stay",
        remedy="mend the file (`guardrail policy lint`) and reload",
    ),
    Fault(
        "reload-under-load",
        "policies are reloaded while reports are in flight",
        reloads,
        goes_on=("checks", "reports"),
        signs=(Sign("guardrail_reloads_total", "rises", {"result": "success"}),),
        shown="verdicts name the policy's revision",
        remedy="nothing",
    ),
    Fault(
        "postgresql-gone",
        "the PostgreSQL server crashes and comes back",
        database_server_is_gone,
        checks=("DECISION_LOG_UNAVAILABLE",),
        reports=("STORE_UNAVAILABLE",),
        also=RESTARTING,
        signs=(DOWN, Sign("guardrail_report_commits_failed_total", "rises")),
        postgres=True,
        remedy="start the server; the service goes on by itself",
    ),
    Fault(
        "feed-lost",
        "a replica cannot hear what others write to the PostgreSQL log",
        changes_are_not_heard,
        notices=("POSTERIOR_BEHIND",),
        goes_on=("checks", "reports"),
        signs=(
            Sign("guardrail_posterior_behind_since_seconds", "> 0"),
            Sign(HEALTH, 0, {"service": "guardrail.following"}),
        ),
        postgres=True,
        remedy="look at the connection to the database; `min_revision` on a check insists on what was acknowledged",
    ),
]

HEAD = """# Faults

What happens when something breaks. `tests/faults/test_table.py` injects each row into a service under load and checks
what callers see and what shows it, that every accept during the fault had the bound that its log gives, that no
acknowledged report was lost or counted twice, and that the service is itself again afterwards. The table is written
from the test's (`python tests/support/fault_table.py`).

Whatever breaks, no action is accepted without a sound bound: anything but an accept means *do not act*. The reasons
are those of [errors.md](errors.md), the metrics those of [metrics.md](metrics.md).

| fault | what callers see | what shows it | what to do |
|---|---|---|---|
"""


_EXPIRED = ("the service's certificate has expired", "`UNREACHABLE`: no service is there")
_EXPIRED += ("the service does not start and says why", "renew it")
_STRANGER = ("the client does not know who signed the certificate", "`UNREACHABLE`", "nothing in the service")
_STRANGER += ("give the client the authority (`Tls(ca=...)`)",)
CERTIFICATES = f"""
`tests/faults/test_certificates.py` does the same for certificates:

| fault | what callers see | what shows it | what to do |
|---|---|---|---|
| {" | ".join(_EXPIRED)} |
| {" | ".join(_STRANGER)} |
"""


def document() -> str:
    """docs/faults.md."""
    rows = []
    for fault in FAULTS:
        shown = "; ".join([*map(str, fault.signs), *([fault.shown] if fault.shown else [])])
        rows.append(f"| {fault.about} | {fault.seen_by_callers()} | {shown} | {fault.remedy} |\n")
    return HEAD + "".join(rows) + CERTIFICATES


if __name__ == "__main__":
    (ROOT / "docs" / "faults.md").write_text(document())
