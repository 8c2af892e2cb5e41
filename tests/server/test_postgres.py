"""The service over PostgreSQL, and what its settings make of a URL."""

from pathlib import Path

import pytest
from postgres import PASSWORD
from pydantic import ValidationError

from guardrail.server.settings import ServerSettings

ACTION = {"kind": "low"}


def test_a_service_over_postgresql_keeps_its_logs(start_service, postgres_url):
    service = start_service(store=postgres_url)
    with service.client() as client:
        for i in range(10):
            client.report(
                policy="coin", world="w", context={}, action=ACTION, outcome={"hurt": False}, observation_id=str(i)
            )
        before = client.check(policy="coin", world="w", context={}, action=ACTION)
    service.stop()
    with start_service(store=postgres_url).client() as client:
        again = client.report(
            policy="coin", world="w", context={}, action=ACTION, outcome={"hurt": False}, observation_id="9"
        )
        after = client.check(policy="coin", world="w", context={}, action=ACTION)
        assert (again.posterior_revision, again.duplicate) == (10, True)
        assert (after.posterior_revision, after.harm_bound) == (10, before.harm_bound)
        assert client.decision(before.decision_id).verdict.harm_bound == before.harm_bound


def test_where_kernels_are_kept(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))

    def folder(store, **options):
        return ServerSettings(policies=(), store=store, **options).kernel_folder

    assert folder("postgresql://user@host/db") == tmp_path / "guardrail" / "kernels"
    assert folder("postgresql://user@host/db", compilation_cache=tmp_path) == tmp_path
    assert folder("var/a.db") == Path("var/kernels")
    assert folder(Path("/var/a.db")) == folder("sqlite:////var/a.db") == Path("/var/kernels")
    assert folder("sqlite:///var/a.db") == Path("var/kernels")
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert folder("postgresql://user@host/db") == Path.home() / ".cache" / "guardrail" / "kernels"


def test_settings_never_show_the_password(postgres_url):
    settings = ServerSettings(policies=(), store=postgres_url)
    assert PASSWORD not in repr(settings)
    assert postgres_url not in repr(settings)
    with pytest.raises(ValidationError) as caught:
        ServerSettings(policies=(), store=postgres_url.encode() + b"\xff", listen="nonsense")
    assert "pass%20word" not in str(caught.value)


def test_a_store_has_a_name():
    with pytest.raises(ValidationError):
        ServerSettings(policies=(), store="")
