"""Whom a verified client certificate names. gRPC has checked by then that the operator's CA signed it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

_NAMES = ("peer_uri", "peer_dns")
_OTHER_NAMES = "x509_subject_alternative_name"
_COMMON_NAME = "x509_common_name"


def names(context: Mapping[str, Iterable[bytes]]) -> frozenset[str]:
    """The names that count: URIs and DNS names, or the common name of a certificate without alternative names.

    Where a CA vouches for alternative names, it may let anybody choose the common name.

    Args:
        context: `ServicerContext.auth_context()`; empty without a client certificate.
    """
    found = [name for kind in _NAMES for name in context.get(kind, ())]
    if not found and not list(context.get(_OTHER_NAMES, ())):
        found = list(context.get(_COMMON_NAME, ()))
    return frozenset(name.decode("utf-8", "replace") for name in found)
