"""What goes wrong in a simulation before or beside its mathematics.

GuardrailError
└── SimulationError
    ├── BadConfiguration      a parameter is impossible, or a configuration file cannot be read
    ├── OtherConfiguration    the output folder holds something else
    ├── CorruptResult         a stored result is damaged
    ├── UnwritableOutput      results cannot be written where they should be
    ├── OutputInUse           another process writes to the output folder
    ├── NoDevice              the device asked for is not there
    ├── RayUnavailable        Ray is not installed or does not answer
    └── ChunkFailed           a chunk of work failed
"""

from __future__ import annotations

from guardrail.errors import GuardrailError


class SimulationError(GuardrailError):
    """Base of the errors of the simulations."""


class BadConfiguration(SimulationError):
    """A parameter is impossible, or a configuration file cannot be read."""

    reason = "BAD_CONFIGURATION"


class OtherConfiguration(SimulationError):
    """The output folder holds results of another configuration, suite or version, or something else."""

    reason = "OTHER_CONFIGURATION"


class CorruptResult(SimulationError):
    """A stored result is damaged."""

    reason = "CORRUPT_RESULT"


class UnwritableOutput(SimulationError):
    """Results cannot be written where they should be."""

    reason = "UNWRITABLE_OUTPUT"


class OutputInUse(SimulationError):
    """Another process writes to the output folder."""

    reason = "OUTPUT_IN_USE"


class NoDevice(SimulationError):
    """The device asked for is not there."""

    reason = "NO_DEVICE"


class RayUnavailable(SimulationError):
    """Ray is not installed or does not answer."""

    reason = "RAY_UNAVAILABLE"


class ChunkFailed(SimulationError):
    """A chunk of work failed."""

    reason = "CHUNK_FAILED"
