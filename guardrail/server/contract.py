"""The wire contract with its validation rules, in a descriptor pool of its own.

The generated stubs carry no rules, and the host program's pool may hold another buf/validate, so
the server reads requests into classes of this pool. They behave as the stubs' classes do.
"""

from __future__ import annotations

from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Final

import protovalidate
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

if TYPE_CHECKING:
    from google.protobuf.message import Message

PACKAGE: Final = "guardrail.v1"
SERVICE: Final = "guardrail.v1.GuardrailService"
MAX_VIOLATIONS = 10
"""Most violations that one answer names: an error travels in the call's trailers, which are small."""


def _load_pool() -> descriptor_pool.DescriptorPool:
    contract = resources.files("guardrail.server").joinpath("contract.binpb").read_bytes()
    loaded = descriptor_pool.DescriptorPool()
    for file in descriptor_pb2.FileDescriptorSet.FromString(contract).file:
        loaded.Add(file)
    return loaded


POOL: Final = _load_pool()
"""The contract with everything it imports; what reflection shows."""

_validator: Final = protovalidate.Validator()


@cache
def request_class(name: str) -> type[Message]:
    """The message class of a request, for instance `request_class("CheckActionRequest")`.

    :raises KeyError: if the contract has no message of that name.
    """
    return message_factory.GetMessageClass(POOL.FindMessageTypeByName(f"{PACKAGE}.{name}"))


def _compile_rules() -> None:
    """Compile every request's rules now: a wrong rule stops the server, not the first request."""
    for method in POOL.FindServiceByName(SERVICE).methods:
        _validator.collect_violations(request_class(method.input_type.name)())


_compile_rules()


def validate(message: Message) -> list[str]:
    """What is wrong with a request, as `field: what would be right`; empty if nothing is.

    At most MAX_VIOLATIONS are named, then how many more there are.

    Args:
        message: an instance of a `request_class`.

    :raises TypeError: if the message is not of this module's pool, so that its rules are missing.
    """
    if message.DESCRIPTOR.file.pool is not POOL:
        raise TypeError(f"{message.DESCRIPTOR.full_name} is not of the contract's pool: it carries no rules")
    violations = _validator.collect_violations(message)
    if not violations:
        return []
    texts = [f"{_path(violation)}: {violation.proto.message}" for violation in violations[:MAX_VIOLATIONS]]
    if len(violations) > MAX_VIOLATIONS:
        texts.append(f"and {len(violations) - MAX_VIOLATIONS} more")
    return texts


def _path(violation: protovalidate.Violation) -> str:
    """The field's place, for instance `reports[3].observation_id`."""
    field = violation.proto.field
    if field is None:
        return "request"
    path = ""
    for element in field.elements:
        path += ("." if path else "") + element.field_name
        if element.subscript is not None and element.subscript.field == "index":
            path += f"[{element.subscript.value}]"
    return path
