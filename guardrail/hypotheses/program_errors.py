"""What can be wrong with a program, in words for its author."""

from __future__ import annotations

from guardrail.errors import GuardrailError


class ProgramError(GuardrailError):
    """A program is no hypothesis class: the message says what it did and what would be right."""

    reason = "MODEL_FAILED"
