"""Who reported, who made a world, and several logs of a world, one after the other."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "guardrail_0002"
down_revision = "guardrail_0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add columns and the table of resets; a row of worlds is one generation from now on."""
    name = sa.String().with_variant(sa.String(collation="C"), "postgresql")
    op.add_column("observations", sa.Column("reporter", name, nullable=False, server_default=""))
    # SQLite cannot drop a constraint: there the table, a row a world, is written anew.
    with op.batch_alter_table("worlds") as worlds:
        worlds.add_column(sa.Column("generation", sa.BigInteger, nullable=False, server_default="1"))
        worlds.add_column(sa.Column("creator", name, nullable=False, server_default=""))
        worlds.drop_constraint("uq_worlds_policy_world", type_="unique")
        worlds.create_unique_constraint("uq_worlds_generation", ["policy", "world", "generation"])
    op.create_index("ix_worlds_creator", "worlds", ["creator"])
    op.create_table(
        "resets",
        sa.Column("world_id", sa.BigInteger, sa.ForeignKey("worlds.id", name="fk_resets_world"), primary_key=True),
        sa.Column("observations", sa.BigInteger, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("caller", name, nullable=False),
        sa.Column("reset_at", sa.Double, nullable=False),
        sa.Column("checksum", sa.LargeBinary, nullable=False),
    )
