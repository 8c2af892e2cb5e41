"""What an operator may set, with its limits."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator


def _text_of_path(store: object) -> object:
    return os.fspath(store) if isinstance(store, os.PathLike) else store


class ServerSettings(BaseModel):
    """Settings of one server process. Whether they are safe together is for `security.start` to say.

    :raises pydantic.ValidationError: if a value is out of range.
    """

    # The store's URL may hold a password: what is wrong is said without repeating what was given.
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    listen: str = Field("127.0.0.1:7410", description="host:port; port 0 picks a free one")
    metrics_listen: str | None = Field(
        None, description="host:port for `GET /metrics` over plain HTTP; port 0 picks a free one; off if unset"
    )
    console_listen: str | None = Field(
        None, description="host:port of the web console; port 0 picks a free one; off if unset"
    )
    console_origins: tuple[Annotated[str, Field(pattern=r"^https?://[A-Za-z0-9.-]+(:[0-9]{1,5})?$")], ...] = Field(
        (), description="further scheme://host[:port] under which the console is reached, through a reverse proxy"
    )
    policies: tuple[Path, ...] = Field(description="policy files, or folders searched for */policy.yaml")
    store: Annotated[str, BeforeValidator(_text_of_path)] = Field(
        min_length=1,
        repr=False,
        description="SQLite database file, made when missing, or postgresql://USER:PASSWORD@HOST/DATABASE",
    )
    device: Literal["cpu", "gpu"] = Field("cpu", description="what enumerated classes are computed on")
    max_request_bytes: Annotated[int, Field(ge=1_024, le=64 * 2**20)] = 2**20
    max_metadata_bytes: Annotated[int, Field(ge=1_024, le=2**20)] = Field(
        16 * 2**10, description="largest metadata of a call: tokens travel in it"
    )
    max_pending_calls: Annotated[int, Field(ge=1, le=2**20)] = Field(
        128,
        description="calls that may wait to be read; from three quarters of it on, new ones are cancelled at random",
    )
    max_streams_per_connection: Annotated[int, Field(ge=1, le=2**20)] = Field(
        1_024, description="calls at once on one connection; the client holds further ones back"
    )
    max_connection_idle_seconds: Annotated[float, Field(ge=1, le=86_400)] = Field(
        1_800.0, description="a connection without calls is closed after so long; clients open another"
    )
    max_connection_age_seconds: Annotated[float, Field(ge=1, le=86_400)] | None = Field(
        None, description="connections are closed after so long, so that clients spread over replicas; off if unset"
    )
    max_checks_in_flight: Annotated[int, Field(ge=1)] = Field(
        1_024, description="checks under way at once; one more is refused as OVERLOADED"
    )
    max_check_wait_seconds: Annotated[float, Field(gt=0, le=3_600)] = Field(
        0.5, description="a check that waited longer for its turn at the kernel is refused as OVERLOADED"
    )
    max_waiting_reports: Annotated[int, Field(ge=1)] = Field(
        16_384, description="reports that wait for their commit; further ones are refused as OVERLOADED"
    )
    max_unwritten_decisions: Annotated[int, Field(ge=1)] = 65_536
    max_unwritten_bytes: Annotated[int, Field(ge=1)] = Field(
        64 * 2**20, description="bytes of the requests whose decisions wait to be written; checks are refused beyond"
    )
    max_worlds: Annotated[int, Field(ge=1)] = 10_000
    max_watchers: Annotated[int, Field(ge=1)] = 64
    stall_seconds: Annotated[float, Field(gt=0, le=3_600)] = Field(
        30.0, description="a kernel call or a store transaction that takes longer counts as hung: health says so"
    )
    snapshot_every: Annotated[int, Field(ge=1)] = Field(10_000, description="observations between snapshots of a world")
    drain_seconds: Annotated[float, Field(ge=0, le=3_600)] = Field(10.0, description="grace for requests at shutdown")
    compilation_cache: Path | None = Field(
        None, description="folder for compiled kernels; beside the database file or in the user's cache if unset"
    )

    @property
    def store_folder(self) -> Path | None:
        """Where the database file lies; None if the store is no file."""
        scheme, separator, path = self.store.partition("://")
        if not separator:
            return Path(self.store).parent
        return Path(path.removeprefix("/")).parent if scheme == "sqlite" else None

    @property
    def kernel_folder(self) -> Path:
        """Where compiled kernels are kept."""
        if self.compilation_cache is not None:
            return self.compilation_cache
        if self.store_folder is not None:
            return self.store_folder / "kernels"
        cache = os.environ.get("XDG_CACHE_HOME", "")
        return (Path(cache) if os.path.isabs(cache) else Path.home() / ".cache") / "guardrail" / "kernels"

    tls_certificate: Path | None = Field(None, description="the server's certificate chain, PEM; plaintext if unset")
    tls_key: Path | None = Field(None, description="its private key, PEM")
    client_ca: Path | None = Field(None, description="who signs client certificates, PEM; none are asked for if unset")
    callers: Path | None = Field(None, description="who may do what; everybody may do everything if unset")
    signing_key: Path | None = Field(
        None, description="Ed25519 private key, PEM, that signs the decision log; it is chained and unsigned if unset"
    )
    traces: bool = Field(False, description="send OpenTelemetry spans, as the environment's OTEL_* say")
    log_decisions: bool = Field(False, description="one log line for each decision, once it is durable")
    reflection: bool = Field(False, description="whether the contract can be asked for over gRPC reflection")

    @field_validator("listen")
    @classmethod
    def _host_and_port(cls, listen: str) -> str:
        _host(listen)
        return listen

    @field_validator("metrics_listen", "console_listen")
    @classmethod
    def _an_address(cls, listen: str | None) -> str | None:
        if listen is not None:
            _host(listen)
        return listen


def _host(listen: str) -> str:
    host, separator, port = listen.rpartition(":")
    if not separator or not host or not (port.isascii() and port.isdigit()) or int(port) > 65_535:
        raise ValueError(f"listen address {listen!r} is not host:port")
    return host
