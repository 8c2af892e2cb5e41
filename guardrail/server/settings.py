"""What an operator may set, with its limits."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator


class ServerSettings(BaseModel):
    """Settings of one server process. Whether they are safe together is for `security.start` to say.

    :raises pydantic.ValidationError: if a value is out of range.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    listen: str = Field("127.0.0.1:7410", description="host:port; port 0 picks a free one")
    metrics_listen: str | None = Field(
        None, description="host:port for `GET /metrics` over plain HTTP; port 0 picks a free one; off if unset"
    )
    policies: tuple[Path, ...] = Field(description="policy files, or folders searched for */policy.yaml")
    store: Path = Field(description="SQLite database file, made when missing")
    device: Literal["cpu", "gpu"] = Field("cpu", description="what enumerated classes are computed on")
    max_request_bytes: Annotated[int, Field(ge=1_024, le=64 * 2**20)] = 2**20
    max_waiting_checks: Annotated[int, Field(ge=1)] = 4_096
    max_waiting_reports: Annotated[int, Field(ge=1)] = 16_384
    max_unwritten_decisions: Annotated[int, Field(ge=1)] = 65_536
    max_worlds: Annotated[int, Field(ge=1)] = 10_000
    max_watchers: Annotated[int, Field(ge=1)] = 64
    snapshot_every: Annotated[int, Field(ge=1)] = Field(10_000, description="observations between snapshots of a world")
    drain_seconds: Annotated[float, Field(ge=0, le=3_600)] = Field(10.0, description="grace for requests at shutdown")
    compilation_cache: Path | None = Field(None, description="folder for compiled kernels; beside the store if unset")

    tls_certificate: Path | None = Field(None, description="the server's certificate chain, PEM; plaintext if unset")
    tls_key: Path | None = Field(None, description="its private key, PEM")
    client_ca: Path | None = Field(None, description="who signs client certificates, PEM; none are asked for if unset")
    callers: Path | None = Field(None, description="who may do what; everybody may do everything if unset")
    reflection: bool = Field(False, description="whether the contract can be asked for over gRPC reflection")

    @field_validator("listen")
    @classmethod
    def _host_and_port(cls, listen: str) -> str:
        _host(listen)
        return listen

    @field_validator("metrics_listen")
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
