"""A service with a web console in a process of its own, and a browser that looks at it."""

from __future__ import annotations

import http.client
import shutil
import signal
import ssl
import time
from contextlib import contextmanager
from dataclasses import dataclass
from urllib.parse import urlencode

from budget_policies import SESSION, budgeted
from debian import need
from running_service import POLICY
from security_files import CallersFile
from server_process import ServerProcess, free_port

import guardrail

GATE = """
schema: guardrail/v1
name: gate
description: What a person may let through.
context: {note: {type: string, optional: true}}
action: {kind: string}
hypotheses:
  family: finite-table
  category: action.kind
  table:
    - {name: mild, prior: 0.5, rates: {low: 0.01, high: 0.1}}
    - {name: wild, prior: 0.5, rates: {low: 0.02, high: 0.15}}
outcome: {name: hurt, type: bool}
harm: outcome.hurt
bound: {kind: ratio, delta: 0.05}
decision: {reject_above: 0.2, escalate_above: 0.06, escalation: {expires: 10m}}
"""
WATCHING = f"{POLICY.replace('name: coin', 'name: watching')}mode: shadow\n"
DOCUMENTS = {"coin": POLICY, "gate": GATE, "budgeted": budgeted("budgeted", SESSION), "watching": WATCHING}

FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)


def chromium():
    """The path of Chromium; Debian's package is installed if it is missing and we are root.

    :raises PackageMissing: if there is none.
    """
    names = ("chromium", "chromium-browser", "google-chrome")

    def find():
        return next((path for path in map(shutil.which, names) if path), None)

    return need("chromium", find, "there is no Chromium on the PATH: install chromium")


def wait_for(condition, seconds=60.0):
    """Wait until something is so."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come to it in time"
        time.sleep(0.05)


@dataclass
class Answer:
    """What the console answered over HTTP."""

    status: int
    headers: dict
    text: str


class Stage:
    """A service with a console.

    Args:
        folder: for its store, policies and callers.
        kernels: where compiled kernels are kept.
        callers: True for a callers file with one caller for each part that a person plays.
        before: Python source that its process runs first.
        more: further policies, name -> document.
        settings: further ones.
    """

    def __init__(self, folder, kernels, *, callers=True, before="", more=(), **settings):
        self.folder, self.console_port = folder, free_port()
        for name, document in {**DOCUMENTS, **dict(more)}.items():
            (folder / "policies" / name).mkdir(parents=True)
            (folder / "policies" / name / "policy.yaml").write_text(document)
        self.callers = None
        if callers:
            only = "{{roles: [{}], policies: ['*'], worlds: ['{}']}}".format
            self.callers = CallersFile(folder / "callers.yaml")
            self.callers.add("agent", "agent").add("reporter", "reporter").add("operator", "operator")
            self.callers.add("viewer", "viewer").add("person", "approver, viewer").add("leaver", "viewer")
            self.callers.add("both", "agent, approver, viewer").add("only-a", only("viewer", "A"))
            self.callers.write()
            settings["callers"] = str(self.callers.path)
        given = {
            "listen": "127.0.0.1:0",
            "console_listen": f"127.0.0.1:{self.console_port}",
            "policies": [str(folder / "policies")],
            "store": str(folder / "guardrail.db"),
            "compilation_cache": str(kernels),
            "max_check_wait_seconds": 60.0,
            "drain_seconds": 1.0,
            **settings,
        }
        self.tls = "tls_certificate" in given
        self.process = ServerProcess({name: value for name, value in given.items() if value is not None}, before=before)
        self.port = self.process.wait_until_serving()

    @property
    def address(self):
        return f"{'https' if self.tls else 'http'}://127.0.0.1:{self.console_port}"

    def client(self, caller=None, **options):
        """A client of the service, as one of the callers."""
        token = None if caller is None else self.callers.keys[caller]
        return guardrail.Client(f"127.0.0.1:{self.port}", timeout=20.0, token=token, **options)

    def reload(self):
        """Have the callers file and the policies read again."""
        before = self.process.said().count("policies_reloaded") + self.process.said().count("policies_not_reloaded")
        self.process.process.send_signal(signal.SIGHUP)
        wait_for(
            lambda: (
                self.process.said().count("policies_reloaded") + self.process.said().count("policies_not_reloaded")
                > before
            )
        )

    def ask(self, method, path, *, headers=None, form=None, host=None):
        """One HTTP request; headers that are None are left out."""
        kind = http.client.HTTPConnection
        options = {}
        if self.tls:
            kind, options = http.client.HTTPSConnection, {"context": ssl._create_unverified_context()}
        connection = kind("127.0.0.1", self.console_port, timeout=30, **options)
        try:
            connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
            body = urlencode(form or {}).encode()
            sent = {"Host": host or f"127.0.0.1:{self.console_port}", **(headers or {})}
            if form is not None:
                sent |= {"Content-Type": "application/x-www-form-urlencoded", "Content-Length": str(len(body))}
            for name, value in sent.items():
                if value is not None:
                    connection.putheader(name, value)
            connection.endheaders(body if form is not None else None)
            reply = connection.getresponse()
            found = {name.lower(): value for name, value in reply.getheaders()}
            return Answer(reply.status, found, reply.read().decode())
        finally:
            connection.close()

    def sign_in(self, token, **more):
        """POST the form of signing in; gives the answer."""
        headers = {"Origin": self.address, **more.pop("headers", {})}
        return self.ask("POST", "/login", headers=headers, form={"token": token, **more})

    def close(self):
        """End it in good order."""
        if self.process.process.poll() is None:
            self.process.terminate()


@contextmanager
def browser():
    """Chromium, headless, with a fresh profile."""
    from playwright.sync_api import sync_playwright

    path = chromium()
    with sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=path, args=list(FLAGS))
        try:
            yield started
        finally:
            started.close()
