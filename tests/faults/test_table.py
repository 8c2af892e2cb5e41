"""Every fault of the table, injected into a service under load."""

from __future__ import annotations

import os

import pytest
from debian import PackageMissing
from fault_stage import Stage
from fault_table import FAULTS, ROOT, document
from postgres import PostgresServer

SLOW = {"postgresql-gone", "feed-lost"}


@pytest.fixture(scope="module", autouse=True)
def kernels(tmp_path_factory):
    """Kernels of equal shape are compiled once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTEST_KERNELS", str(tmp_path_factory.mktemp("kernels")))
        yield


@pytest.fixture
def database(fault):
    """A PostgreSQL server for the rows that break one; else None."""
    if not fault.postgres:
        yield None
        return
    try:
        server = PostgresServer()
    except PackageMissing as missing:
        if os.environ.get("CI") == "true":
            raise
        pytest.skip(str(missing))
    yield server
    server.close()


@pytest.fixture
def stage(fault, database, tmp_path, monkeypatch):
    store = None if database is None else database.url(database.create_database())
    stage = Stage(
        tmp_path,
        monkeypatch,
        store=store,
        options=fault.options,
        load=fault.load,
        proxied=fault.proxied,
    )
    stage.postgres = database
    yield stage
    stage.close()


def everything_is_seen(stage, fault, before):
    """True once callers have seen what the row says, and the metrics show it."""
    load = stage.load
    codes = {reason.code for verdict, _ in load.verdicts for reason in verdict.reasons}
    notices = {notice.code for verdict, _ in load.verdicts for notice in verdict.notices}
    return (
        all(load.failures["check", reason] for reason in fault.checks)
        and all(load.failures["report", reason] for reason in fault.reports)
        and codes.issuperset(fault.rejected)
        and notices.issuperset(fault.notices)
        and all(shown(stage, sign, before) for sign in fault.signs)
    )


def shown(stage, sign, before):
    service, value = before[sign.name, str(sign)]
    return sign.holds(value if service is stage.service else 0.0, stage.metric(sign.name, sign.labels))


@pytest.mark.parametrize(
    "fault", [pytest.param(f, marks=[pytest.mark.slow] * (f.name in SLOW), id=f.name) for f in FAULTS]
)
def test_a_fault_is_seen_and_shown_and_costs_no_report_and_no_unsound_accept(fault, stage):
    load = stage.load
    load.progress()
    assert {reason for _, reason in load.failures} <= {*fault.checks, *fault.reports}  # a short queue is often full
    before = {(s.name, str(s)): (stage.service, stage.metric(s.name, s.labels)) for s in fault.signs}
    with fault.inject(stage):
        load.wait_for(lambda: everything_is_seen(stage, fault, before))
        reports, checks = len(load.acknowledged), len(load.verdicts)
        if "reports" in fault.goes_on:
            load.wait_for(lambda: len(load.acknowledged) > reports + 8)
        if "checks" in fault.goes_on:
            load.wait_for(lambda: len(load.verdicts) > checks + 4)
    stage.finish()
    seen = {*fault.checks, *fault.also}, {*fault.reports, *fault.also}
    for kind, allowed in zip(("check", "report"), seen, strict=True):
        assert {reason for who, reason in load.failures if who == kind} <= allowed
    assert load.acknowledged
    assert load.verdicts


def test_the_document_is_the_table():
    assert (ROOT / "docs" / "faults.md").read_text() == document(), "run `python tests/support/fault_table.py`"


def test_every_metric_of_the_table_is_one_of_the_service():
    from guardrail.server.metric_definitions import DEFINITIONS

    assert {sign.name for fault in FAULTS for sign in fault.signs} <= {definition.name for definition in DEFINITIONS}


def test_every_reason_of_the_table_is_documented():
    errors = (ROOT / "docs" / "errors.md").read_text()
    for fault in FAULTS:
        assert all(f"`{reason}`" in errors for reason in (*fault.checks, *fault.reports))
