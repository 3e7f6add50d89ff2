"""Keys have scopes, may expire, and record when they were last used."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply. Earlier keys could read and write; none could administer by the API."""
    with op.batch_alter_table("api_keys", schema=None) as batch_op:
        batch_op.add_column(sa.Column("scopes", sa.String(length=64), nullable=False, server_default="read write"))
        batch_op.add_column(sa.Column("expires_at", sa.Double(), nullable=True))
        batch_op.add_column(sa.Column("last_used_at", sa.Double(), nullable=True))
    with op.batch_alter_table("api_keys", schema=None) as batch_op:
        batch_op.alter_column("scopes", existing_type=sa.String(length=64), server_default=None)


def downgrade() -> None:
    """Undo. Raises where keys are limited: the earlier release would let them do everything, for ever."""
    limited_keys = op.get_bind().execute(
        sa.text(
            "SELECT count(*) FROM api_keys WHERE revoked_at IS NULL "
            "AND (expires_at IS NOT NULL OR scopes NOT LIKE 'read write%')"
        )
    )
    if limited_keys.scalar_one():
        raise RuntimeError("Some keys expire or have few scopes; revoke them first.")
    with op.batch_alter_table("api_keys", schema=None) as batch_op:
        for column in ("scopes", "expires_at", "last_used_at"):
            batch_op.drop_column(column)
