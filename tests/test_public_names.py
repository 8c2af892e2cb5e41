import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import guardrail

PUBLIC = [
    "ActionBlocked",
    "AsyncClient",
    "CautiousHypothesis",
    "CheckedActions",
    "Client",
    "Decision",
    "DecisionNotFound",
    "Guarantee",
    "GuaranteeKind",
    "Guard",
    "GuardrailError",
    "InvalidInput",
    "LimitExceeded",
    "MissingExtra",
    "NoVerdict",
    "PermissionDenied",
    "PolicyError",
    "PolicyNotFound",
    "Reason",
    "ReasonCode",
    "Report",
    "ReportConflict",
    "Reported",
    "ServiceError",
    "Tls",
    "Unauthenticated",
    "Verdict",
    "WorldNotFound",
    "__version__",
    "bounds",
]
CLIENT_METHODS = {
    "check",
    "check_many",
    "close",
    "decision",
    "decisions",
    "escalations",
    "guarded",
    "policies",
    "policy",
    "reload_policies",
    "reset_world",
    "resolve_escalation",
    "report",
    "report_not_taken",
    "report_many",
    "session",
    "validate_policy",
    "watch",
    "world",
    "worlds",
}


def test_public_names_are_pinned():
    assert guardrail.__all__ == PUBLIC
    assert set(PUBLIC) <= set(dir(guardrail))


@pytest.mark.parametrize("name", PUBLIC)
def test_every_public_name_loads(name):
    value = getattr(guardrail, name)
    if isinstance(value, type):
        assert value.__name__ == name
        assert value.__doc__


@pytest.mark.parametrize("name", ["Client", "AsyncClient"])
def test_both_clients_have_the_same_methods(name):
    client = getattr(guardrail, name)
    assert {method for method in dir(client) if not method.startswith("_")} == CLIENT_METHODS
    assert all(getattr(client, method).__doc__ for method in CLIENT_METHODS)


def test_bounds_offers_what_the_contract_names():
    for name in ("predictive", "iid", "plausible_set", "plausible", "ratio_set", "ratio"):
        assert callable(getattr(guardrail.bounds, name))


def test_other_names_are_attribute_errors():
    with pytest.raises(AttributeError, match="no attribute 'Clint'"):
        guardrail.Clint  # noqa: B018


def test_the_version_is_the_packages():
    project = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text())["project"]
    assert guardrail.__version__ == project["version"]


def run_without(modules, code):
    script = f"import sys; sys.modules.update(dict.fromkeys({modules!r}))\nimport guardrail\n{code}"
    done = subprocess.run([sys.executable, "-I", "-c", script], capture_output=True, text=True, check=False)
    return done.stdout.strip(), done.stderr


@pytest.mark.parametrize("name", ["Guard", "bounds"])
def test_a_missing_extra_is_named_with_its_remedy(name):
    code = f"try: guardrail.{name}\nexcept guardrail.MissingExtra as error: print(error)"
    out, err = run_without(["jax", "jaxlib", "numpy", "ruamel.yaml"], code)
    assert out == f"guardrail.{name} needs the 'server' extra: pip install 'guardrail[server]'", err


def test_a_defect_of_ours_is_not_taken_for_a_missing_extra():
    out, err = run_without(["guardrail.domain"], "guardrail.Guard")
    assert out == ""
    assert "ModuleNotFoundError: import of guardrail.domain" in err
    assert "MissingExtra" not in err
