"""Outcomes that accepted actions owe."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "guardrail_0006"
down_revision = "guardrail_0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the table of awaited outcomes, and the way to those that were taken for harm."""
    name = sa.String().with_variant(sa.String(collation="C"), "postgresql")
    op.create_table(
        "awaited",
        sa.Column("decision_id", name, primary_key=True),
        sa.Column("world_id", sa.BigInteger, sa.ForeignKey("worlds.id", name="fk_awaited_world"), nullable=False),
        sa.Column("policy_revision", name, nullable=False),
        sa.Column("decided_at", sa.Double, nullable=False),
        sa.Column("due_at", sa.Double, nullable=False),
        sa.Column("request", sa.Text, nullable=False),
        sa.Column("state", sa.String, nullable=False),
        sa.Column("settled_at", sa.Double, nullable=True),
        sa.Column("checksum", sa.LargeBinary, nullable=False),
    )
    op.create_index("ix_awaited_state", "awaited", ["state", "world_id", "due_at"])
    where = sa.text("reporter = 'guardrail'")
    op.create_index(
        "ix_observations_assumed",
        "observations",
        ["world_id", "sequence"],
        sqlite_where=where,
        postgresql_where=where,
    )
