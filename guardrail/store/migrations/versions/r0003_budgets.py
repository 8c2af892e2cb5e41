"""Harm budgets: what each has spent, and on which decisions."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "guardrail_0003"
down_revision = "guardrail_0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the tables of budgets and of reservations."""
    name = sa.String().with_variant(sa.String(collation="C"), "postgresql")
    row_id = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    op.create_table(
        "budgets",
        sa.Column("id", row_id, primary_key=True),
        sa.Column("policy", name, nullable=False),
        sa.Column("world", name, nullable=False),
        sa.Column("session", name, nullable=False),
        sa.Column("per", sa.String, nullable=False),
        sa.Column("total", sa.Double, nullable=False),
        sa.Column("window_seconds", sa.Double, nullable=False),
        sa.Column("spent", sa.BigInteger, nullable=False),
        sa.Column("accepts", sa.BigInteger, nullable=False),
        sa.Column("edge", sa.BigInteger, nullable=False),
        sa.Column("started_at", sa.Double, nullable=False),
        sa.Column("last_at", sa.Double, nullable=False),
        sa.Column("checksum", sa.LargeBinary, nullable=False),
        sa.UniqueConstraint("policy", "world", "session", name="uq_budgets_session"),
    )
    op.create_table(
        "reservations",
        sa.Column("id", row_id, primary_key=True),
        sa.Column("decision_id", name, nullable=False),
        sa.Column("budget_id", sa.BigInteger, sa.ForeignKey("budgets.id", name="fk_reservations_budget"), nullable=False),
        sa.Column("units", sa.BigInteger, nullable=False),
        sa.Column("reserved_at", sa.Double, nullable=False),
        sa.Column("policy_revision", name, nullable=False),
        sa.Column("generation", sa.BigInteger, nullable=False),
        sa.Column("delta", sa.Double, nullable=True),
        sa.Column("checksum", sa.LargeBinary, nullable=False),
        sa.UniqueConstraint("decision_id", name="uq_reservations_decision"),
    )
    op.create_index("ix_reservations_order", "reservations", ["budget_id", "id"])
