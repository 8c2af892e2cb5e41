"""The walls between the rooms, read from the source and seen in running interpreters."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
HEAVY = {"alembic", "jax", "jaxlib", "numpy", "numpyro", "protovalidate", "pyro", "sqlalchemy", "torch"}
NUMERIC_ROOMS = {"bounds", "guard", "hypotheses", "oracles"}


# ---------------------------------------------------------------- reading imports


def is_type_checking(node):
    return isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")


def imported_names(tree, package):
    """Dotted names that a module may import when it runs, inside functions too; `a.b` for `from a import b`."""
    pending = list(tree.body)
    while pending:
        node = pending.pop()
        if is_type_checking(node):
            pending += node.orelse
            continue
        pending += list(ast.iter_child_nodes(node))
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            origin = ".".join([*base, *([node.module] if node.module else [])])
            yield from (f"{origin}.{alias.name}" for alias in node.names)


class Graph:
    """Which module of a source tree imports which module of it, and which top-level packages from outside."""

    def __init__(self, root, package="guardrail"):
        self.package = package
        files = {self.name(root, file): file for file in sorted((root / package).rglob("*.py"))}
        self.inside, self.outside = {}, {}
        for name, file in files.items():
            tree = ast.parse(file.read_text())
            here = name if file.name == "__init__.py" else name.rpartition(".")[0]
            names = set(imported_names(tree, here))
            ours = {n for n in names if n.partition(".")[0] == package}
            self.inside[name] = {found for n in ours for found in self.modules_of(n, files)} - {name}
            self.outside[name] = {n.partition(".")[0] for n in names - ours} - sys.stdlib_module_names

    @staticmethod
    def name(root, file):
        parts = file.relative_to(root).with_suffix("").parts
        return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)

    def modules_of(self, name, files):
        """The longest prefix of a name that is a module, and the packages on the way, which run too.

        The root package is left out: what it loads, it loads on demand (seen at run time below).
        """
        parts = name.split(".")
        prefixes = [".".join(parts[:count]) for count in range(2, len(parts) + 1)]
        return [prefix for prefix in prefixes if prefix in files]

    def room(self, *rooms):
        """The modules of some rooms (`client` is guardrail/client/ or guardrail/client.py)."""
        whole = tuple(f"{self.package}.{room}" for room in rooms)
        found = {m for m in self.inside if m in whole or m.startswith(tuple(f"{w}." for w in whole))}
        assert found, f"there is no {rooms}"
        return found

    def reach(self, modules, doors=frozenset()):
        """All modules that these may load, and all top-level packages from outside; not through the doors."""
        seen, pending = set(), set(modules)
        while pending:
            module = pending.pop()
            seen.add(module)
            pending |= {found for found in self.inside[module] if (module, found) not in doors} - seen
        return seen, set().union(*(self.outside[module] for module in seen))


@pytest.fixture(scope="module")
def graph():
    return Graph(ROOT)


# ---------------------------------------------------------------- the walls in the source


def test_domain_imports_nothing_of_the_project_and_nothing_installed(graph):
    assert graph.inside["guardrail.domain"] == set()
    assert graph.outside["guardrail.domain"] == set()
    assert graph.reach({"guardrail.errors"}) == ({"guardrail.errors"}, set())


def test_bounds_see_arrays_only(graph):
    bounds = graph.room("bounds")
    modules, packages = graph.reach(bounds)
    assert modules == bounds
    assert packages <= {"jax", "numpy"}


def test_calibration_sees_numbers_only(graph):
    modules, packages = graph.reach(graph.room("calibration"))
    assert modules == graph.room("calibration")
    assert packages <= {"numpy"}


def test_policy_needs_no_numerics(graph):
    # Running a suite takes a guard; it is imported then, if the caller brings no other (see the run-time test).
    modules, packages = graph.reach(graph.room("policy"), {("guardrail.policy.suite", "guardrail.guard")})
    assert not packages & {"jax", "jaxlib", "numpy", "numpyro", "pyro", "torch"}
    assert not modules & graph.room("hypotheses", "bounds", "oracles", "server", "store", "client")


def test_the_client_is_thin(graph):
    integrations = graph.room("client.integrations")
    modules, packages = graph.reach(graph.room("client") - integrations)
    assert not modules & integrations
    assert packages <= {"google", "grpc", "grpc_status", "opentelemetry"}
    modules, packages = graph.reach(graph.room("client"))
    assert packages <= {"google", "grpc", "grpc_status", "gymnasium", "opentelemetry"}
    assert not modules & graph.room("server", "store", "policy", *NUMERIC_ROOMS)


def test_stores_and_oracles_know_no_service(graph):
    for room in ("store", "oracles", "hypotheses", "guard"):
        modules, packages = graph.reach(graph.room(room))
        assert not modules & graph.room("server", "client", "cli"), room
        assert not packages & {"grpc", "grpc_status"}, room


def test_torch_stays_in_its_file(graph):
    users = {module for module, packages in graph.outside.items() if packages & {"torch", "pyro"}}
    assert users <= {"guardrail.hypotheses.torch_program"}


def test_the_web_console_asks_by_grpc_and_knows_no_service(graph):
    users = {module for module, packages in graph.outside.items() if packages & {"nicegui", "fastapi", "uvicorn"}}
    assert users - {"guardrail.server.web_console"} <= graph.room("console")  # that one asks whether it is installed
    modules, packages = graph.reach(graph.room("console"))
    assert not modules & graph.room("server", "store", "policy", "cli", *NUMERIC_ROOMS)
    assert not packages & HEAVY


def test_nothing_imports_what_uses_it(graph):
    for module, packages in graph.outside.items():
        assert not packages & {"simulations", "benchmarks", "tests", "tools"}, module


# ---------------------------------------------------------------- the reader itself


def test_the_reader_sees_every_way_to_import(tmp_path):
    package = tmp_path / "guardrail"
    (package / "room").mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "room" / "__init__.py").write_text("import numpy")
    (package / "room" / "inner.py").write_text("value = 1")
    (package / "plain.py").write_text("import os, grpc.aio\nfrom . import room\n")
    (package / "deep.py").write_text(
        "def f():\n    try:\n        from guardrail.room.inner import value\n    finally:\n        pass"
    )
    (package / "typed.py").write_text(
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import jax\nelse:\n    import torch"
    )
    graph = Graph(tmp_path)
    assert graph.inside["guardrail.plain"] == {"guardrail.room"}
    assert graph.outside["guardrail.plain"] == {"grpc"}
    assert graph.inside["guardrail.deep"] == {"guardrail.room", "guardrail.room.inner"}
    assert graph.outside["guardrail.typed"] == {"torch"}
    assert graph.reach({"guardrail.deep"})[1] == {"numpy"}


# ---------------------------------------------------------------- the walls at run time


def loaded_by(code):
    """Names of all modules in a fresh, isolated interpreter after running some code."""
    script = f"{code}\nimport json, sys; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-I", "-c", script], capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout))


def rooms(modules):
    return {name.split(".")[1] for name in modules if name.startswith("guardrail.")}


def test_importing_the_package_loads_next_to_nothing():
    modules = loaded_by("import guardrail; guardrail.__version__; dir(guardrail)")
    assert not modules & (HEAVY | {"google.protobuf", "grpc", "pydantic", "structlog"})
    assert rooms(modules) == set()


def test_the_clients_load_grpc_and_no_numerics():
    modules = loaded_by("import guardrail; guardrail.Client, guardrail.AsyncClient, guardrail.NoVerdict")
    assert "grpc" in modules
    assert not modules & (HEAVY | {"opentelemetry"})
    assert rooms(modules) == {
        "approvals",
        "canonical",
        "client",
        "domain",
        "errors",
        "spans",
        "v1",
        "wire",
        "wire_approvals",
        "wire_posterior",
    }


def test_the_plain_nouns_load_neither_grpc_nor_numerics():
    modules = loaded_by("from guardrail import Verdict, Decision, NoVerdict, Report")
    assert not modules & (HEAVY | {"google.protobuf", "grpc"})


def test_reading_a_policy_loads_neither_jax_nor_torch():
    everything = "for m in pkgutil.iter_modules(p.__path__): importlib.import_module(f'guardrail.policy.{m.name}')"
    modules = loaded_by(f"import importlib, pkgutil, guardrail.policy as p\n{everything}")
    assert "guardrail.policy.suite" in modules
    assert not modules & {"jax", "jaxlib", "numpy", "torch", "grpc"}
    assert rooms(modules) == {"domain", "errors", "policy"}


def test_the_guard_in_process_loads_no_service():
    modules = loaded_by("import guardrail; guardrail.Guard")
    assert not modules & {"torch", "grpc", "sqlalchemy"}
    assert not rooms(modules) & {"server", "store", "client"}


CHANGES = """
import importlib, pkgutil, jax
before = dict(jax.config.values)
import guardrail
for module in pkgutil.walk_packages(guardrail.__path__, "guardrail."):
    if ".migrations" not in module.name and not module.name.endswith("__main__"):
        importlib.import_module(module.name)
after = dict(jax.config.values)
print({name: (before.get(name), after[name]) for name in after if after[name] != before.get(name)})
"""


def test_importing_any_module_leaves_jax_as_the_host_program_set_it():
    done = subprocess.run([sys.executable, "-I", "-c", CHANGES], capture_output=True, text=True, check=False)
    assert (done.stdout, done.returncode) == ("{}\n", 0), done.stderr
