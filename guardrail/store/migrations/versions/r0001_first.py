"""The first schema."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "guardrail_0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create every table."""
    name = sa.String().with_variant(sa.String(collation="C"), "postgresql")
    row_id = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    op.create_table(
        "policies",
        sa.Column("revision", name, primary_key=True),
        sa.Column("name", name, nullable=False),
        sa.Column("document", sa.Text, nullable=False),
        sa.Column("recorded_at", sa.Double, nullable=False),
        sa.Column("checksum", sa.LargeBinary, nullable=False),
    )
    op.create_table(
        "worlds",
        sa.Column("id", row_id, primary_key=True),
        sa.Column("policy", name, nullable=False),
        sa.Column("world", name, nullable=False),
        sa.Column("observations", sa.BigInteger, nullable=False),
        sa.UniqueConstraint("policy", "world", name="uq_worlds_policy_world"),
    )
    op.create_table(
        "observations",
        sa.Column("world_id", sa.BigInteger, sa.ForeignKey("worlds.id", name="fk_observations_world"), nullable=False),
        sa.Column("sequence", sa.BigInteger, nullable=False),
        sa.Column("observation_id", name, nullable=False),
        sa.Column("digest", sa.String, nullable=False),
        sa.Column("content", sa.Text, nullable=False),
        sa.Column("recorded_at", sa.Double, nullable=False),
        sa.Column("checksum", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("world_id", "sequence", name="pk_observations"),
        sa.UniqueConstraint("world_id", "observation_id", name="uq_observations_id"),
    )
    op.create_table(
        "decisions",
        sa.Column("id", row_id, primary_key=True),
        sa.Column("decision_id", name, nullable=False),
        sa.Column("world_id", sa.BigInteger, sa.ForeignKey("worlds.id", name="fk_decisions_world"), nullable=False),
        sa.Column("policy_revision", name, nullable=False),
        sa.Column("posterior_revision", sa.BigInteger, nullable=False),
        sa.Column("decision", sa.String, nullable=False),
        sa.Column("request", sa.Text, nullable=False),
        sa.Column("verdict", sa.Text, nullable=False),
        sa.Column("decided_at", sa.Double, nullable=False),
        sa.Column("checksum", sa.LargeBinary, nullable=False),
        sa.UniqueConstraint("decision_id", name="uq_decisions_id"),
    )
    op.create_index(
        "ix_decisions_order",
        "decisions",
        ["world_id", "policy_revision", "posterior_revision", "decided_at", "id"],
    )
    op.create_table(
        "snapshots",
        sa.Column("world_id", sa.BigInteger, sa.ForeignKey("worlds.id", name="fk_snapshots_world"), nullable=False),
        sa.Column("policy_revision", name, nullable=False),
        sa.Column("sequence", sa.BigInteger, nullable=False),
        sa.Column("checksum", sa.LargeBinary, nullable=False),
        sa.Column("payload", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("world_id", "policy_revision", "sequence", name="pk_snapshots"),
    )
