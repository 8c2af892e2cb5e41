import io

import typer
from rich.console import Console

from guardrail.cli import progress


def test_what_is_printed_meanwhile_goes_where_it_should(monkeypatch, capsys):
    """A terminal shows the progress while the results go to a file or a pipe."""
    terminal = io.StringIO()
    monkeypatch.setattr(progress, "progress_console", lambda: Console(file=terminal, force_terminal=True))
    for item in progress.counted(range(3), "items read"):
        typer.echo(f"result {item}")
    assert capsys.readouterr().out == "result 0\nresult 1\nresult 2\n"
    assert "items read" in terminal.getvalue()
    assert "result" not in terminal.getvalue()


def test_without_a_terminal_there_is_none(monkeypatch, capsys):
    elsewhere = io.StringIO()
    monkeypatch.setattr(progress, "progress_console", lambda: Console(file=elsewhere))
    assert list(progress.counted(range(3), "items read")) == [0, 1, 2]
    assert elsewhere.getvalue().strip() == ""
