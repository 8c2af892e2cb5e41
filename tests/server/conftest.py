"""Services of the tests' own."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from running_service import POLICY, KeptMetrics, Service

from guardrail.server import app
from guardrail.server.settings import ServerSettings


@pytest.fixture
def policy_folder(tmp_path):
    folder = tmp_path / "policies" / "coin"
    folder.mkdir(parents=True)
    (folder / "policy.yaml").write_text(POLICY)
    return tmp_path / "policies"


@pytest.fixture
def start_service(tmp_path, policy_folder, tmp_path_factory, monkeypatch):
    """Start services over the test's store; all of them are stopped at the end."""
    monkeypatch.setattr(app, "Metrics", KeptMetrics)
    with contextlib.ExitStack() as stack:

        def start(**options):
            settings = ServerSettings(
                listen="127.0.0.1:0",
                policies=(policy_folder,),
                # One folder for the whole run: kernels of equal shape are compiled once.
                compilation_cache=Path(tmp_path_factory.getbasetemp()) / "kernels",
                **{"store": tmp_path / "guardrail.db", "drain_seconds": 5.0, "max_check_wait_seconds": 60.0, **options},
            )
            service = Service(settings).start()
            stack.callback(service.stop)
            return service

        yield start


@pytest.fixture
def service(start_service):
    return start_service()


@pytest.fixture
def client(service):
    with service.client() as client:
        yield client
