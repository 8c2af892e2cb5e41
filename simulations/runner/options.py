"""Command-line options from a suite's configuration, and a configuration from options and a file."""

from __future__ import annotations

import argparse
import difflib
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, get_origin

from pydantic import ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from simulations.runner.errors import BadConfiguration
from simulations.runner.suite import SuiteConfig

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pydantic.fields import FieldInfo

ConfigT = TypeVar("ConfigT", bound=SuiteConfig)
MAX_FILE_BYTES = 1_000_000


def add_options(parser: argparse._ArgumentGroup, config_type: type[SuiteConfig]) -> None:
    """An option for each field; a field that is a tuple takes values apart from each other, with commas, or again."""
    for name, field in config_type.model_fields.items():
        default = field.get_default(call_default_factory=True)
        shown = " ".join(map(str, default)) if isinstance(default, tuple) else default
        text = f"{field.description} (default: {shown})" if default is not None else f"{field.description}"
        flag = f"--{name.replace('_', '-')}"
        options: dict[str, Any] = {"dest": name, "default": None, "help": text.replace("%", "%%")}
        if _is_tuple(field):
            parser.add_argument(flag, nargs="*", action=_Extend, metavar="VALUE", **options)
        elif field.annotation is bool:
            parser.add_argument(flag, action=argparse.BooleanOptionalAction, **options)
        else:
            parser.add_argument(flag, metavar="VALUE", **options)


def configuration(config_type: type[ConfigT], given: Mapping[str, Any], file: Path | None) -> ConfigT:
    """The configuration: what the options say, else what the file says, else the defaults.

    :raises BadConfiguration: if something in it is impossible, or the file cannot be read.
    """
    values = {} if file is None else _read(file, config_type)
    values |= {name: value for name, value in given.items() if value is not None}
    try:
        return config_type.model_validate(values)
    except ValidationError as error:
        raise BadConfiguration("; ".join(_sentence(problem) for problem in error.errors())) from error


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


def _is_tuple(field: FieldInfo) -> bool:
    return get_origin(field.annotation) is tuple


def _read(file: Path, config_type: type[SuiteConfig]) -> dict[str, Any]:
    try:
        if file.stat().st_size > MAX_FILE_BYTES:
            raise BadConfiguration(f"{file} is larger than {MAX_FILE_BYTES} bytes")
        content = YAML(typ="safe", pure=True).load(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise BadConfiguration(f"cannot read {file}: {error.strerror}") from error
    except (YAMLError, UnicodeDecodeError) as error:
        raise BadConfiguration(f"{file} is not YAML: {' '.join(str(error).split())}") from error
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise BadConfiguration(f"{file} must hold one value for each parameter, such as `episodes: 1000`")
    fields = config_type.model_fields
    for key in content:
        if key not in fields:
            near = difflib.get_close_matches(str(key), fields, 1)
            hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(fields)}"
            raise BadConfiguration(f"{file}: unknown parameter {key}; {hint}")
    return dict(content)


def _sentence(problem: Any) -> str:
    place = "".join(f"[{part}]" if isinstance(part, int) else f"--{part}".replace("_", "-") for part in problem["loc"])
    message = problem["msg"].removeprefix("Value error, ")
    shown = f", got {problem['input']!r}" if place and problem["type"] != "value_error" else ""
    return f"{place}: {message}{shown}" if place else message
