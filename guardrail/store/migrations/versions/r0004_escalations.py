"""Escalated actions, and what a person said about them."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "guardrail_0004"
down_revision = "guardrail_0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the table of escalations."""
    name = sa.String().with_variant(sa.String(collation="C"), "postgresql")
    op.create_table(
        "escalations",
        sa.Column("escalation_id", name, primary_key=True),
        sa.Column("policy", name, nullable=False),
        sa.Column("policy_revision", name, nullable=False),
        sa.Column("world", name, nullable=False),
        sa.Column("caller", name, nullable=False),
        sa.Column("digest", sa.String, nullable=False),
        sa.Column("opened_at", sa.Double, nullable=False),
        sa.Column("expires_at", sa.Double, nullable=False),
        sa.Column("state", sa.String, nullable=False),
        sa.Column("approver", name, nullable=False),
        sa.Column("note", sa.Text, nullable=False),
        sa.Column("resolved_at", sa.Double, nullable=True),
        sa.Column("used_at", sa.Double, nullable=True),
        sa.Column("used_by", name, nullable=False),
        sa.Column("checksum", sa.LargeBinary, nullable=False),
    )
    op.create_index("ix_escalations_opened", "escalations", ["opened_at", "escalation_id"])
