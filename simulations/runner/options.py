"""Command-line options from a suite's configuration, and a configuration from options and a file."""

from __future__ import annotations

import argparse
import types
from typing import TYPE_CHECKING, Annotated, Any, Literal, NoReturn, TypeVar, Union, get_args, get_origin

from pydantic import ValidationError

from guardrail.errors import PolicyError
from guardrail.policy.document import Document, Node
from guardrail.policy.expressions import suggest
from guardrail.policy.wording import problems
from guardrail.policy.yaml_source import read_document, read_file
from simulations.runner.errors import BadConfiguration
from simulations.runner.suite import SuiteConfig

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from pydantic.fields import FieldInfo

ConfigT = TypeVar("ConfigT", bound=SuiteConfig)


class Parser(argparse.ArgumentParser):
    """Options in full only, and mistakes as errors."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options, allow_abbrev=False)

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        """What the arguments say.

        :raises BadConfiguration: if they are wrong.
        """
        found, left = self.parse_known_args(args, namespace)
        if left:
            known = [option for action in self._actions for option in action.option_strings]
            name = left[0].partition("=")[0]
            if not name.startswith("--"):
                hint = (
                    f"a negative number is written --option={name}" if name.startswith("-") else "options begin with --"
                )
            else:
                hint = suggest(name, known)
            raise BadConfiguration(f"{name} is not known here; {hint}")
        return found

    def error(self, message: str) -> NoReturn:
        """Told by the caller, as any other mistake.

        :raises BadConfiguration: always.
        """
        raise BadConfiguration(message)


def add_options(parser: argparse._ArgumentGroup, config_type: type[SuiteConfig]) -> None:
    """An option for each field; a field that is a tuple takes values apart from each other, with commas, or again."""
    for name, field in config_type.model_fields.items():
        flag = f"--{name.replace('_', '-')}"
        options: dict[str, Any] = {"dest": name, "default": None, "help": _help(field)}
        kind = _kind(field.annotation)
        if get_origin(field.annotation) is tuple:
            parser.add_argument(flag, nargs="*", action=_Extend, metavar=_metavar(kind), **options)
        elif kind is bool:
            parser.add_argument(flag, action=argparse.BooleanOptionalAction, **options)
        else:
            parser.add_argument(flag, metavar=_metavar(kind), **options)


def configuration(config_type: type[ConfigT], given: Mapping[str, Any], file: Path | None) -> ConfigT:
    """The configuration: what the options say, else what the file says, else the defaults.

    Args:
        config_type: the parameters.
        given: what each option says, as text (Booleans and lists apart); None if it was not given.
        file: YAML with some of the parameters.

    :raises BadConfiguration: if something in it is impossible, or the file cannot be read.
    """
    typed = {
        name: _typed(_kind(config_type.model_fields[name].annotation), value)
        for name, value in given.items()
        if value is not None
    }
    document = Document("", "", Node("mapping", 0, 0, 0, 0), []) if file is None else _read(file)
    try:
        # Strict: in a file, "5" or true where a number is needed is a mistake.
        return config_type.model_validate({**document.root.data(), **typed}, strict=True)
    except ValidationError as error:
        told = [_sentence(document, config_type, typed, problem) for problem in error.errors()]
        raise BadConfiguration("; ".join(dict.fromkeys(told))) from error


class _Extend(argparse.Action):
    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | Sequence[Any] | None,
        option_string: str | None = None,
    ) -> None:
        parts = [part for value in values or () for part in str(value).split(",") if part]
        setattr(namespace, self.dest, [*(getattr(namespace, self.dest) or []), *parts])


# ---------------------------------------------------------------- types


def _kind(annotation: Any) -> Any:
    """The scalar type of a field: without None, and the elements' for a tuple."""
    origin = get_origin(annotation)
    if origin is Annotated or origin is tuple:
        return _kind(get_args(annotation)[0])
    if origin in (Union, types.UnionType):
        return _kind(next(branch for branch in get_args(annotation) if branch is not type(None)))
    return annotation


def _metavar(kind: Any) -> str:
    if get_origin(kind) is Literal:
        return "{" + ",".join(map(str, get_args(kind))) + "}"
    return {int: "INT", float: "NUMBER"}.get(kind, "TEXT")


def _help(field: FieldInfo) -> str:
    default = field.get_default(call_default_factory=True)
    if default is None:
        return str(field.description).replace("%", "%%")
    shown = " ".join(map(str, default)) if isinstance(default, tuple) else default
    return f"{field.description} (default: {shown})".replace("%", "%%")


def _typed(kind: Any, value: Any) -> Any:
    """An option's text as its field's type; left as text if it is none, for the validator to refuse."""
    if isinstance(value, list):
        return tuple(_typed(kind, part) for part in value)
    if kind in (int, float) and isinstance(value, str):
        try:
            return kind(value)
        except ValueError:
            return value
    return value


# ---------------------------------------------------------------- words


def _read(file: Path) -> Document:
    try:
        document = read_document(read_file(file), str(file))
        if document.problems:
            raise PolicyError(document.problems)
    except PolicyError as error:
        raise BadConfiguration("; ".join(map(_place_and_message, error.problems))) from error
    return document


def _place_and_message(problem: Any) -> str:
    place = f"{problem.path}:{problem.line}:{problem.column}" if problem.line else problem.path
    return f"{place}: {problem.message}"


def _sentence(file: Document, config_type: type[SuiteConfig], typed: Mapping[str, Any], error: Any) -> str:
    """What is wrong, and where: an option, or a place in the file."""
    loc = error["loc"]
    own = error["type"] == "value_error"
    message = str(error["msg"]).removeprefix("Value error, ")
    if not loc:
        return message
    if loc[0] in typed:
        flag = f"--{str(loc[0]).replace('_', '-')}"
        document = Document("", "", Node("mapping", 0, 0, 0, 0), [])
        document.root.entries = {name: (_node(name), _node(value)) for name, value in typed.items()}
        return f"{flag}: {message if own else problems(document, config_type, [error])[0].message}"
    found = file.problem(loc, f"{loc[0]}: {message}") if own else problems(file, config_type, [error])[0]
    return _place_and_message(found)


def _node(value: Any) -> Node:
    if isinstance(value, tuple):
        return Node("sequence", 0, 0, 0, 0, items=[_node(item) for item in value])
    return Node("scalar", 0, 0, 0, 0, value=value)
