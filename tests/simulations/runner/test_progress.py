"""What is told of the work while it goes on."""

import io
import sys

from rich.console import Console

from simulations.runner.progress import Bar, Lines


def test_lines_come_seldom_and_with_rate_and_time_left(capsys):
    now = [100.0]
    lines = Lines(clock=lambda: now[0])
    lines.start(1, 11, 100, 1100, "episodes")
    for _ in range(10):
        now[0] += 4.0
        lines.advance(100)
    assert capsys.readouterr().err.splitlines() == [
        "going on: 1 of 11 chunks are there already",
        "400 of 1,100 episodes, 25 episodes/s, 28 s left",
        "700 of 1,100 episodes, 25 episodes/s, 16 s left",
        "1,000 of 1,100 episodes, 25 episodes/s, 4 s left",
        "1,100 of 1,100 episodes, 25 episodes/s",
    ]


def test_lines_survive_a_clock_that_stands_still(capsys):
    lines = Lines(clock=lambda: 0.0)
    lines.start(0, 2, 0, 2, "runs")
    lines.advance(1)
    lines.advance(1)
    assert capsys.readouterr().err.startswith("2 of 2 runs")


def test_the_bar_shows_unit_count_and_rate(monkeypatch):
    terminal = io.StringIO()
    terminal.isatty = lambda: True
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "150")
    with Bar() as bar:
        bar.start(1, 3, 10, 30, "episodes")
        for _ in range(20):
            bar.advance(1)
    shown = Console(file=io.StringIO(), width=150)
    shown.print(terminal.getvalue())
    text = shown.file.getvalue()
    assert "going on: 1 of 3 chunks are there already" in text
    assert "30/30" in text
    assert "episodes/s" in text
