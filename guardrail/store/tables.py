"""The schema as SQLAlchemy Core tables. `migrations/` builds the same one step by step."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Column,
    Double,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    String,
    Table,
    Text,
    UniqueConstraint,
)

SCHEMA_REVISION = "guardrail_0005"
"""The newest migration."""

VERSION_TABLE = "guardrail_schema"
"""Where the database keeps its migration; not Alembic's default name, which other programs use."""

metadata = MetaData()

# Names sort by code point on every database, as they do in Python.
_Name = String().with_variant(String(collation="C"), "postgresql")
# SQLite numbers rows by itself only in a column declared INTEGER, which holds 64 bits there.
_RowId = BigInteger().with_variant(Integer(), "sqlite")

policies = Table(
    "policies",
    metadata,
    Column("revision", _Name, primary_key=True),
    Column("name", _Name, nullable=False),
    Column("document", Text, nullable=False),
    Column("recorded_at", Double, nullable=False),
    Column("checksum", LargeBinary, nullable=False),
)

worlds = Table(
    "worlds",
    metadata,
    Column("id", _RowId, primary_key=True),
    Column("policy", _Name, nullable=False),
    Column("world", _Name, nullable=False),
    Column("observations", BigInteger, nullable=False),
    Column("generation", BigInteger, nullable=False, server_default="1"),
    Column("creator", _Name, nullable=False, server_default=""),
    UniqueConstraint("policy", "world", "generation", name="uq_worlds_generation"),
    Index("ix_worlds_creator", "creator"),
)
"""One row for each log of a world. The one with the highest generation is the present log."""

resets = Table(
    "resets",
    metadata,
    Column("world_id", BigInteger, ForeignKey("worlds.id", name="fk_resets_world"), primary_key=True),
    Column("observations", BigInteger, nullable=False),
    Column("reason", Text, nullable=False),
    Column("caller", _Name, nullable=False),
    Column("reset_at", Double, nullable=False),
    Column("checksum", LargeBinary, nullable=False),
)
"""Who closed a log, when and why."""

observations = Table(
    "observations",
    metadata,
    Column("world_id", BigInteger, ForeignKey("worlds.id", name="fk_observations_world"), nullable=False),
    Column("sequence", BigInteger, nullable=False),
    Column("observation_id", _Name, nullable=False),
    Column("digest", String, nullable=False),
    Column("content", Text, nullable=False),
    Column("recorded_at", Double, nullable=False),
    Column("checksum", LargeBinary, nullable=False),
    Column("reporter", _Name, nullable=False, server_default=""),
    PrimaryKeyConstraint("world_id", "sequence", name="pk_observations"),
    UniqueConstraint("world_id", "observation_id", name="uq_observations_id"),
)

decisions = Table(
    "decisions",
    metadata,
    Column("id", _RowId, primary_key=True),
    Column("decision_id", _Name, nullable=False),
    Column("world_id", BigInteger, ForeignKey("worlds.id", name="fk_decisions_world"), nullable=False),
    Column("policy_revision", _Name, nullable=False),
    Column("posterior_revision", BigInteger, nullable=False),
    Column("decision", String, nullable=False),
    Column("request", Text, nullable=False),
    Column("verdict", Text, nullable=False),
    Column("decided_at", Double, nullable=False),
    Column("checksum", LargeBinary, nullable=False),
    Column("chain", _Name),
    Column("position", BigInteger),
    Column("link", LargeBinary),
    Column("signature", LargeBinary),
    UniqueConstraint("decision_id", name="uq_decisions_id"),
    Index("uq_decisions_position", "chain", "position", unique=True),
    Index("ix_decisions_order", "world_id", "policy_revision", "posterior_revision", "decided_at", "id"),
)

chains = Table(
    "chains",
    metadata,
    Column("chain", _Name, primary_key=True),
    Column("opened_at", Double, nullable=False),
    Column("public_key", LargeBinary),
    Column("head_position", BigInteger, nullable=False),
    Column("head_link", LargeBinary, nullable=False),
    Column("head_signature", LargeBinary),
)
"""One row for each store that ever wrote decisions: where its chain of them ends."""

snapshots = Table(
    "snapshots",
    metadata,
    Column("world_id", BigInteger, ForeignKey("worlds.id", name="fk_snapshots_world"), nullable=False),
    Column("policy_revision", _Name, nullable=False),
    Column("sequence", BigInteger, nullable=False),
    Column("checksum", LargeBinary, nullable=False),
    Column("payload", LargeBinary, nullable=False),
    PrimaryKeyConstraint("world_id", "policy_revision", "sequence", name="pk_snapshots"),
)
