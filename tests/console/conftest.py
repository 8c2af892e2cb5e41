"""Consoles of the tests' own, each in a process: NiceGUI keeps its state in its modules."""

from __future__ import annotations

import contextlib
import os

import pytest
from console_stage import Stage, browser
from debian import PackageMissing


@pytest.fixture(scope="module")
def start_stage(tmp_path_factory):
    """Start services with consoles; all of them are stopped at the end."""
    with contextlib.ExitStack() as stack:

        def start(**options):
            stage = Stage(tmp_path_factory.mktemp("console"), tmp_path_factory.getbasetemp() / "kernels", **options)
            stack.callback(stage.close)
            return stage

        yield start


@pytest.fixture(scope="module")
def chromium():
    """One browser; it has to be ended before the next module, whose tests may want an event loop."""
    try:
        with browser() as started:
            yield started
    except PackageMissing as missing:
        if os.environ.get("CI") == "true":
            raise
        pytest.skip(str(missing))


@pytest.fixture
def open_page(chromium):
    """open_page(stage, caller, path) -> a page of a fresh profile, signed in; an error in it fails the test."""
    with contextlib.ExitStack() as stack:
        wrong = []

        def open_it(stage, caller=None, path="/", size=(1280, 720)):
            context = chromium.new_context(viewport={"width": size[0], "height": size[1]}, ignore_https_errors=True)
            stack.callback(context.close)
            page = context.new_page()
            page.set_default_timeout(20_000)
            page.on("pageerror", lambda error: wrong.append(str(error)))
            page.on("dialog", lambda dialog: (wrong.append(dialog.message), dialog.dismiss()))
            page.goto(f"{stage.address}{path}")
            if caller is not None:
                page.get_by_label("Key or token").fill(stage.callers.keys[caller])
                page.get_by_role("button", name="Sign in").click()
                page.wait_for_url(f"{stage.address}{path}")
            return page

        yield open_it
        assert wrong == []
