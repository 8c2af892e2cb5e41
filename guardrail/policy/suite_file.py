"""Reads `suite.yaml` and the history files beside it."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from guardrail.domain import ReasonCode
from guardrail.errors import PolicyError, Problem
from guardrail.policy import wording
from guardrail.policy.document import Document, in_order
from guardrail.policy.expressions import suggest
from guardrail.policy.schema import FieldSpec
from guardrail.policy.suite_schema import Event, HistoryFile, Range, SuiteSpec
from guardrail.policy.yaml_source import read_document, read_file

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from guardrail.policy.policy import Policy

MAX_HISTORY_BYTES = 64 * 2**20
_TRUE, _FALSE = frozenset({"true", "1", "yes"}), frozenset({"false", "0", "no"})


def load_suite(path: str | Path) -> tuple[SuiteSpec, Document]:
    """Read a suite and the document it came from.

    :raises PolicyError: if the suite is wrong; holds every problem with its position.
    """
    document = read_document(read_file(Path(path)), str(path))
    problems = list(document.problems)
    spec = None
    try:
        spec = SuiteSpec.model_validate(document.root.data())
    except ValidationError as error:
        problems += wording.problems(document, SuiteSpec, error.errors(include_url=False, include_input=False))
    else:
        problems += _check(document, spec)
    if spec is None or problems:
        raise PolicyError(in_order(document, problems))
    return spec, document


def _check(document: Document, spec: SuiteSpec) -> Iterator[Problem]:
    names: set[str] = set()
    for index, case in enumerate(spec.cases):
        route = ("cases", index)
        if case.name in names:
            yield document.problem((*route, "name"), f"{case.name!r} is given twice; every case needs its own name")
        names.add(case.name)
        columns = case.history_file.columns if case.history_file else {"outcome": ""}
        if not any(target.partition(".")[0] == "outcome" for target in columns):
            message = "no column is the outcome; add outcome: <column>"
            yield document.problem((*route, "history_file", "columns"), message)
        for place, code in enumerate(case.expect.reasons):
            if code not in ReasonCode.__members__:
                message = f"unknown reason code {code!r}; {suggest(code, list(ReasonCode.__members__))}"
                yield document.problem((*route, "expect", "reasons", place), message)
        for field in ("harm_bound", "predictive_harm"):
            range_: Range | None = getattr(case.expect, field)
            if range_ is not None and range_.min is not None and range_.max is not None and range_.min > range_.max:
                yield document.problem((*route, "expect", field), "min is above max; swap them")


def read_history(file: HistoryFile, folder: Path, policy: Policy) -> Iterator[Event]:
    """The outcomes of a CSV file, cells converted to the types that the policy declares.

    :raises ValueError: if the file cannot be read or does not fit; the message says where.
    """
    path = folder / file.path
    if not path.is_file():
        raise ValueError(f"{file.path} is not a file beside the suite")
    if path.stat().st_size > MAX_HISTORY_BYTES:
        raise ValueError(f"{file.path} is larger than {MAX_HISTORY_BYTES} bytes")
    readers = [_column(target, columns, policy) for target, columns in file.columns.items()]
    with path.open(newline="", encoding="utf-8-sig") as lines:
        rows = csv.DictReader(lines)
        needed = {name for _, _, names, _ in readers for name in names}
        missing = sorted(needed - set(rows.fieldnames or ()))
        if missing:
            raise ValueError(f"{file.path} has no column {missing[0]!r}; {suggest(missing[0], rows.fieldnames or ())}")
        for row in rows:
            event: dict[str, Any] = {"context": {}, "action": {}}
            for owner, field, names, type_ in readers:
                try:
                    cells = [_cell(row[name], type_) for name in names]
                except ValueError as error:
                    raise ValueError(f"{file.path}:{rows.line_num}: {error}") from error
                value = cells if type_ == "list" else cells[0]
                if owner == "outcome":
                    event["outcome"] = value
                elif value is not None:
                    event[owner][field] = value
            yield Event.model_validate(event)


def _column(target: str, columns: str | tuple[str, ...], policy: Policy) -> tuple[str, str, tuple[str, ...], str]:
    owner, _, field = target.partition(".")
    declared: Mapping[str, Any] = {"context": policy.spec.context, "action": policy.spec.action}.get(owner, {})
    names = (columns,) if isinstance(columns, str) else columns
    if owner == "outcome" and field in ("", policy.outcome_name):
        type_ = policy.outcome_type
    elif field in declared:
        spec = declared[field]
        type_ = spec.type if isinstance(spec, FieldSpec) else spec
    else:
        raise ValueError(f"the policy has no {target!r}; write context.<field>, action.<field> or outcome")
    if type_ != "list" and len(names) != 1:
        raise ValueError(f"{target} is one value and needs one column")
    return owner, field, names, type_


def _cell(text: str | None, type_: str) -> Any:
    if text is None or text == "":
        return None
    if type_ == "string":
        return text
    if type_ == "bool":
        if text.lower() not in _TRUE | _FALSE:
            raise ValueError(f"{text!r} is not true or false")
        return text.lower() in _TRUE
    return float(text)
