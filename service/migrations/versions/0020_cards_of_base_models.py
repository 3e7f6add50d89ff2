"""Base models can be added while the service runs, each has a card; workers say whether they train in 4 bits.

A preview that takes longer than its request is found again by the hash of its body.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0020"
down_revision = "0019"
branch_labels = None
depends_on = None

_JSON = sa.JSON().with_variant(JSONB(), "postgresql")


def upgrade() -> None:
    """Apply. Workers that run report themselves anew, and nobody waits for a preview while the schema changes."""
    op.create_table(
        "base_models",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("entry", _JSON, nullable=True),
        sa.Column("fingerprint", sa.String(length=64), nullable=False),
        sa.Column("files", _JSON, nullable=True),
        sa.Column("card", _JSON, nullable=True),
        sa.Column("problem", sa.Text(), nullable=True),
        sa.Column("checked_at", sa.Double(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_base_models")),
    )
    op.execute("DELETE FROM workers")
    op.execute("DELETE FROM previews")
    with op.batch_alter_table("workers", schema=None) as batch_op:
        batch_op.add_column(sa.Column("trains_in_4bit", sa.Boolean(), nullable=False))
    with op.batch_alter_table("previews", schema=None) as batch_op:
        batch_op.add_column(sa.Column("left_sha256", sa.String(length=64), nullable=True))
        batch_op.add_column(sa.Column("awaited_at", sa.Double(), nullable=False))


def downgrade() -> None:
    """Undo. Bases that were added are known no longer: name them in a catalog file to use what was trained on them."""
    op.drop_column("previews", "awaited_at")
    op.drop_column("previews", "left_sha256")
    op.drop_column("workers", "trains_in_4bit")
    op.drop_table("base_models")
