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
    text,
)

SCHEMA_REVISION = "guardrail_0006"
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
    # The few that nobody observed: outcomes that were taken for harm.
    Index(
        "ix_observations_assumed",
        "world_id",
        "sequence",
        sqlite_where=text("reporter = 'guardrail'"),
        postgresql_where=text("reporter = 'guardrail'"),
    ),
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

escalations = Table(
    "escalations",
    metadata,
    Column("escalation_id", _Name, primary_key=True),
    Column("policy", _Name, nullable=False),
    Column("policy_revision", _Name, nullable=False),
    Column("world", _Name, nullable=False),
    Column("caller", _Name, nullable=False),
    Column("digest", String, nullable=False),
    Column("opened_at", Double, nullable=False),
    Column("expires_at", Double, nullable=False),
    Column("state", String, nullable=False),
    Column("approver", _Name, nullable=False),
    Column("note", Text, nullable=False),
    Column("resolved_at", Double, nullable=True),
    Column("used_at", Double, nullable=True),
    Column("used_by", _Name, nullable=False),
    Column("checksum", LargeBinary, nullable=False),
    Index("ix_escalations_opened", "opened_at", "escalation_id"),
)
"""Escalated actions, and what a person said about them."""
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

budgets = Table(
    "budgets",
    metadata,
    Column("id", _RowId, primary_key=True),
    Column("policy", _Name, nullable=False),
    Column("world", _Name, nullable=False),
    Column("session", _Name, nullable=False),
    Column("per", String, nullable=False),
    Column("total", Double, nullable=False),
    Column("window_seconds", Double, nullable=False),
    Column("spent", BigInteger, nullable=False),
    Column("accepts", BigInteger, nullable=False),
    Column("edge", BigInteger, nullable=False),
    Column("started_at", Double, nullable=False),
    Column("last_at", Double, nullable=False),
    Column("checksum", LargeBinary, nullable=False),
    UniqueConstraint("policy", "world", "session", name="uq_budgets_session"),
)
"""What is spent of each harm budget; a rolling window has an empty session. Reservations up to `edge` have left it."""

reservations = Table(
    "reservations",
    metadata,
    Column("id", _RowId, primary_key=True),
    Column("decision_id", _Name, nullable=False),
    Column("budget_id", BigInteger, ForeignKey("budgets.id", name="fk_reservations_budget"), nullable=False),
    Column("units", BigInteger, nullable=False),
    Column("reserved_at", Double, nullable=False),
    Column("policy_revision", _Name, nullable=False),
    Column("generation", BigInteger, nullable=False),
    Column("delta", Double, nullable=True),
    Column("checksum", LargeBinary, nullable=False),
    UniqueConstraint("decision_id", name="uq_reservations_decision"),
    Index("ix_reservations_order", "budget_id", "id"),
)
"""The harm bounds that were set aside, one for each accept. Those of a budget are numbered in the order of time."""

awaited = Table(
    "awaited",
    metadata,
    Column("decision_id", _Name, primary_key=True),
    Column("world_id", BigInteger, ForeignKey("worlds.id", name="fk_awaited_world"), nullable=False),
    Column("policy_revision", _Name, nullable=False),
    Column("decided_at", Double, nullable=False),
    Column("due_at", Double, nullable=False),
    Column("request", Text, nullable=False),
    Column("state", String, nullable=False),
    Column("settled_at", Double, nullable=True),
    Column("checksum", LargeBinary, nullable=False),
    Index("ix_awaited_state", "state", "world_id", "due_at"),
)
"""Accepted actions whose outcomes are to be reported within a time; the log is the one that was present then."""
