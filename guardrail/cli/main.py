"""The entry point `guardrail`."""

from __future__ import annotations

import sys
import traceback


def main() -> None:
    """Run the command line; exits with a status of `guardrail.cli.console.ExitCode`."""
    try:
        from guardrail.cli.app import app
    except ImportError as error:
        # Typer and rich are not part of the base install, so there is no other way to say it yet.
        sys.stderr.write(
            "error [MISSING_EXTRA]: the command line needs the 'server' extra: "
            f"pip install 'guardrail[server]' ({error})\n"
        )
        sys.exit(3)
    try:
        app()
    except Exception as error:  # noqa: BLE001  (people get a sentence, not a traceback)
        sys.exit(_explain(error))


def _explain(error: Exception) -> int:
    from guardrail.cli.console import ExitCode, report_error
    from guardrail.errors import GuardrailError, MissingExtra

    if isinstance(error, ModuleNotFoundError) and not (error.name or "guardrail").startswith("guardrail"):
        error = MissingExtra(f"this command, which uses {error.name},", "server")
    if not isinstance(error, GuardrailError):
        place = traceback.extract_tb(error.__traceback__)[-1]
        error = GuardrailError(f"{type(error).__name__}: {error} ({place.filename}:{place.lineno})")
    report_error(error)
    return ExitCode.NO_ANSWER


if __name__ == "__main__":
    main()
