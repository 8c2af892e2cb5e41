"""Chains over the decision log, and each decision's place in one."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "guardrail_0005"
down_revision = "guardrail_0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the table of chains; decisions from before have no place in one."""
    name = sa.String().with_variant(sa.String(collation="C"), "postgresql")
    op.create_table(
        "chains",
        sa.Column("chain", name, primary_key=True),
        sa.Column("opened_at", sa.Double, nullable=False),
        sa.Column("public_key", sa.LargeBinary),
        sa.Column("head_position", sa.BigInteger, nullable=False),
        sa.Column("head_link", sa.LargeBinary, nullable=False),
        sa.Column("head_signature", sa.LargeBinary),
    )
    op.add_column("decisions", sa.Column("chain", name))
    op.add_column("decisions", sa.Column("position", sa.BigInteger))
    op.add_column("decisions", sa.Column("link", sa.LargeBinary))
    op.add_column("decisions", sa.Column("signature", sa.LargeBinary))
    op.create_index("uq_decisions_position", "decisions", ["chain", "position"], unique=True)
