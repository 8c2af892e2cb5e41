"""Certificates that are not to be trusted: nothing is accepted, and the client says that it reached nobody."""

from __future__ import annotations

import pytest
from fault_stage import Stage, reason_of
from security_files import LOCAL, Authority

from guardrail.client.access import Tls
from guardrail.errors import SecurityInvalid


def settings(issued):
    return {"tls_certificate": issued.certificate, "tls_key": issued.key}


def test_a_service_does_not_start_on_an_expired_certificate(tmp_path, monkeypatch):
    issued = Authority(tmp_path).issue("server", LOCAL, start=-3, end=-1)
    with pytest.raises(SecurityInvalid, match="expired"):
        Stage(tmp_path, monkeypatch, options=settings(issued))


def test_a_client_does_not_trust_an_authority_that_it_does_not_know(tmp_path, monkeypatch):
    authority, other = Authority(tmp_path), Authority(tmp_path, "other")
    stage = Stage(
        tmp_path, monkeypatch, options=settings(authority.issue("server", LOCAL)), load={"tls": Tls(ca=authority.path)}
    )
    try:
        stage.load.progress()
        for tls in (Tls(ca=other.path), None):
            with stage.client(timeout=2.0, **({} if tls is None else {"tls": tls})) as client:
                checked = reason_of(
                    lambda c=client: c.check(policy="coin", world="w0", context={}, action={"kind": "low"})
                )
                reported = reason_of(
                    lambda c=client: c.report(
                        policy="coin", world="w0", context={}, action={"kind": "low"}, outcome=False
                    )
                )
            assert {checked, reported} <= {"UNREACHABLE", "DEADLINE_EXCEEDED"}
        stage.load.progress()
        stage.load.stop()
        assert not stage.load.violations
    finally:
        stage.close()
