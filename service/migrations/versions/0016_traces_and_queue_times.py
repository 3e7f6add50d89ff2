"""Jobs have the trace that they belong to, and the time at which they were queued."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply. A job that is queued now counts from its creation."""
    op.add_column("jobs", sa.Column("queued_at", sa.Double(), nullable=True))
    op.add_column("jobs", sa.Column("traceparent", sa.String(length=55), nullable=True))
    op.execute("UPDATE jobs SET queued_at = created_at WHERE state = 'queued'")


def downgrade() -> None:
    op.drop_column("jobs", "traceparent")
    op.drop_column("jobs", "queued_at")
