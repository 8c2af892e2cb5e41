"""The shape of `suite.yaml`, a policy's tests.

```yaml
schema: guardrail-suite/v1
cases:
  - name: after three safe runs the action is accepted
    history:                                   # outcomes reported before the check, in order
      - {context: {}, action: {x: 1.0}, outcome: false, times: 3}
    context: {}
    action: {x: 1.0}
    expect: {decision: accept, harm_bound: {max: 0.2}, reasons: [WITHIN_THRESHOLD]}
  - name: with the history of a file
    history_file:                              # a CSV file beside suite.yaml, read before `history`
      path: flights.csv
      columns: {context.temperature: temp_f, outcome: damaged}     # field: its column
    context: {temperature: 31}
    action: {}
    expect: {decision: reject}
```
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from guardrail.policy.schema_base import Model

SUITE_SCHEMA_ID = "urn:guardrail:v1:suite"


class Event(Model):
    """One outcome reported before the check."""

    context: dict[str, Any] = Field(default_factory=dict)
    action: dict[str, Any] = Field(default_factory=dict)
    outcome: Any = Field(description="the bare value, or {name: value}")
    times: Annotated[int, Field(ge=1, le=100_000)] = Field(1, description="report it this often")


class HistoryFile(Model):
    """Outcomes in a CSV file with a header, one a row."""

    path: Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]*$", description="a file beside suite.yaml")]
    columns: Annotated[dict[str, str | tuple[str, ...]], Field(min_length=1)] = Field(
        description="context.<field>, action.<field> or outcome: the column; a list of columns for a list field"
    )


class Range(Model):
    """An interval with both ends included; an end that is not given is open."""

    min: Annotated[float, Field(ge=0, le=1)] | None = None
    max: Annotated[float, Field(ge=0, le=1)] | None = None

    def holds(self, value: float | None) -> bool:
        """True if the value is a number inside."""
        if value is None:
            return False
        return (0.0 if self.min is None else self.min) <= value <= (1.0 if self.max is None else self.max)

    def __str__(self) -> str:
        return f"{0 if self.min is None else self.min:g} to {1 if self.max is None else self.max:g}"


class Expectation(Model):
    """What the verdict must be."""

    decision: Literal["accept", "escalate", "reject"]
    harm_bound: Range | None = None
    predictive_harm: Range | None = None
    reasons: tuple[str, ...] = Field((), description="reason codes that the verdict must hold, others may be there")


class Case(Model):
    """A history and one check after it."""

    name: Annotated[str, Field(min_length=1, max_length=200)]
    history_file: HistoryFile | None = None
    history: tuple[Event, ...] = ()
    context: dict[str, Any] = Field(default_factory=dict)
    action: dict[str, Any] = Field(default_factory=dict)
    expect: Expectation


class SuiteSpec(Model):
    """A policy's tests."""

    schema_: Literal["guardrail-suite/v1"] = Field(alias="schema")
    cases: Annotated[tuple[Case, ...], Field(min_length=1, max_length=10_000)]


def suite_json_schema() -> dict[str, Any]:
    """The JSON Schema (2020-12) of a suite file, for editors that complete and check YAML."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": SUITE_SCHEMA_ID,
        **SuiteSpec.model_json_schema(by_alias=True),
        "title": "Guardrail policy suite",
    }
