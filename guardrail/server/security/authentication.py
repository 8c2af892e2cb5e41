"""From a call's credentials to its caller."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping

from guardrail.errors import Unauthenticated
from guardrail.server.security import certificates, keys
from guardrail.server.security.callers_file import Callers, Entry
from guardrail.server.security.grants import Caller
from guardrail.server.security.tokens import Tokens

Metadata = Iterable[tuple[str, str | bytes]]


class Authenticator:
    """Knows the callers of one callers file. Call it from one thread.

    Args:
        callers: the file.
        now: seconds since the epoch.
        clock: seconds, monotonic.

    :raises SecurityInvalid: if the issuer's keys cannot be read.
    """

    def __init__(
        self, callers: Callers, now: Callable[[], float] = time.time, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._owners = [entry for entry in callers.entries for _ in entry.hashes]
        self._hashes = [name for entry in callers.entries for name in entry.hashes]
        self._by_certificate = {e.certificate: e for e in callers.entries if e.certificate is not None}
        bearers = [entry for entry in callers.entries if entry.claims]
        self._tokens = None if callers.jwt is None else Tokens(callers.jwt, bearers, now, clock)
        self.reads_certificates = bool(self._by_certificate)

    def identify(self, metadata: Metadata, peer: Mapping[str, Iterable[bytes]]) -> Caller:
        """Who calls. Every credential that is shown must be right, and all must name the same caller.

        Args:
            metadata: of the call.
            peer: `ServicerContext.auth_context()`; may be empty if no caller is known by a certificate.

        :raises Unauthenticated: CREDENTIALS_MISSING, CREDENTIALS_INVALID or CREDENTIALS_EXPIRED. The message holds
            no part of a credential.
        """
        headers = [value for name, value in metadata if name == "authorization"]
        if len(headers) > 1:
            raise Unauthenticated("the call has several authorization headers; send one")
        by_header = self._of_header(headers[0]) if headers else None
        by_certificate = self._of_certificate(peer)
        if by_header is None and by_certificate is None:
            raise Unauthenticated(
                "the call shows no credential; send `authorization: Bearer ...`, or a client certificate that the "
                "callers file names",
                "CREDENTIALS_MISSING",
            )
        if by_header is None:
            assert by_certificate is not None
            return by_certificate.caller
        entry, caller = by_header
        if by_certificate is not None and by_certificate is not entry:
            raise Unauthenticated("the bearer token and the client certificate name two callers; send one of them")
        return caller

    def _of_header(self, header: str | bytes) -> tuple[Entry, Caller]:
        scheme, _, credential = (header if isinstance(header, str) else "").partition(" ")
        if scheme.lower() != "bearer" or not credential:
            raise Unauthenticated("the authorization header is not `Bearer` and a key or token")
        if credential.startswith(keys.PREFIX):
            place = keys.find(credential, self._hashes)
            if place is None:
                raise Unauthenticated("the key belongs to no caller")
            return self._owners[place], self._owners[place].caller
        if self._tokens is None:
            raise Unauthenticated("the credential is no key, and no tokens are accepted here")
        identity = self._tokens.identify(credential)
        return identity.entry, identity.caller

    def _of_certificate(self, peer: Mapping[str, Iterable[bytes]]) -> Entry | None:
        if not self._by_certificate:
            return None
        found = [self._by_certificate[name] for name in certificates.names(peer) if name in self._by_certificate]
        if len(found) > 1:
            raise Unauthenticated("the client certificate names several callers of the callers file")
        return found[0] if found else None
