"""What a reload of the callers file leaves in use."""

import asyncio
import threading
from types import SimpleNamespace

import pytest

from guardrail.errors import Unauthenticated
from guardrail.server.security import gate as gates
from guardrail.server.security.gate import Gate


def call(key):
    return SimpleNamespace(invocation_metadata=lambda: (("authorization", f"Bearer {key}"),), peer=lambda: "test")


def test_a_reload_that_reads_slowly_brings_nobody_back(callers, monkeypatch):
    gate = Gate(callers.add("stays", "agent").add("leaver", "agent").write())
    begun, go_on, read = threading.Event(), threading.Event(), gates.read_callers

    def read_slowly(path):
        found = read(path)
        if not begun.is_set():
            begun.set()
            assert go_on.wait(30)
        return found

    async def load():
        return []

    async def story():
        first = asyncio.create_task(gate.reload_with(load))
        await asyncio.to_thread(begun.wait, 30)
        callers.remove("leaver").write()
        second = asyncio.create_task(gate.reload_with(load))
        await asyncio.wait({second}, timeout=0.5)
        go_on.set()
        await asyncio.gather(first, second)

    monkeypatch.setattr(gates, "read_callers", read_slowly)
    assert gate.caller(call(callers.keys["leaver"])).name == "leaver"
    asyncio.run(story())
    assert gate.caller(call(callers.keys["stays"])).name == "stays"
    with pytest.raises(Unauthenticated):
        gate.caller(call(callers.keys["leaver"]))
