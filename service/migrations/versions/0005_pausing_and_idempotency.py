"""A job may be asked to pause; a creation may carry an idempotency key."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    with op.batch_alter_table("jobs", schema=None) as batch_op:
        batch_op.add_column(sa.Column("pause_requested", sa.Boolean(), nullable=False, server_default=sa.false()))
    with op.batch_alter_table("jobs", schema=None) as batch_op:
        batch_op.alter_column("pause_requested", existing_type=sa.Boolean(), server_default=None)


def downgrade() -> None:
    """Undo. Raises where jobs are paused: the earlier schema's processes would never let them go on."""
    paused = op.get_bind().execute(sa.text("SELECT count(*) FROM jobs WHERE state = 'paused'"))
    if paused.scalar_one():
        raise RuntimeError("Some jobs are paused; resume or cancel them first.")
    with op.batch_alter_table("jobs", schema=None) as batch_op:
        batch_op.drop_column("pause_requested")
