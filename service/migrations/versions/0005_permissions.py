"""A project may share its models and checkpoints with others."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "checkpoint_permissions",
        sa.Column("seq", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("id", sa.String(length=40), nullable=False),
        sa.Column("model", sa.String(length=255), nullable=False),
        sa.Column("job_id", sa.String(length=40), nullable=False),
        sa.Column("project_id", sa.String(length=40), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(
            ["project_id"], ["projects.id"], name=op.f("fk_checkpoint_permissions_project_id_projects")
        ),
        sa.PrimaryKeyConstraint("seq", name=op.f("pk_checkpoint_permissions")),
        sa.UniqueConstraint("id", name=op.f("uq_checkpoint_permissions_id")),
        sa.UniqueConstraint("project_id", "model", name=op.f("uq_checkpoint_permissions_project_id")),
    )
    op.create_index(op.f("ix_checkpoint_permissions_model"), "checkpoint_permissions", ["model"])


def downgrade() -> None:
    """Undo; nothing is shared any more."""
    op.drop_table("checkpoint_permissions")
