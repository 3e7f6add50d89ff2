"""Priority, timeout, budget and resources of jobs; the workers that live; previews under way."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

_JSON = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")
_COLUMNS = (
    "priority",
    "timeout_seconds",
    "budget",
    "resources",
    "running_seconds",
    "train_seconds",
    "ended_by",
)


def upgrade() -> None:
    """Apply. Jobs that are there have the ordinary priority and no limits."""
    with op.batch_alter_table("jobs", schema=None) as batch_op:
        batch_op.add_column(sa.Column("priority", sa.Integer(), nullable=False, server_default="0"))
        batch_op.add_column(sa.Column("timeout_seconds", sa.Integer(), nullable=True))
        batch_op.add_column(sa.Column("budget", _JSON, nullable=True))
        batch_op.add_column(sa.Column("resources", _JSON, nullable=True))
        batch_op.add_column(sa.Column("running_seconds", sa.Double(), nullable=False, server_default="0"))
        batch_op.add_column(sa.Column("train_seconds", sa.Double(), nullable=True))
        batch_op.add_column(sa.Column("ended_by", sa.String(length=16), nullable=True))
    op.create_table(
        "workers",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("name", sa.String(length=128), nullable=False),
        sa.Column("seen_at", sa.Double(), nullable=False),
        sa.Column("gpus", sa.Integer(), nullable=False),
        sa.Column("gpu_memory", sa.BigInteger(), nullable=True),
        sa.Column("labels", _JSON, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_workers")),
    )
    op.create_table(
        "previews",
        sa.Column("seq", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("id", sa.String(length=40), nullable=False),
        sa.Column("project_id", sa.String(length=40), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("job", _JSON, nullable=False),
        sa.Column("rows_shown", sa.Integer(), nullable=False),
        sa.Column("taken_by", sa.String(length=64), nullable=True),
        sa.Column("note", sa.Text(), nullable=True),
        sa.Column("result", _JSON, nullable=True),
        sa.ForeignKeyConstraint(
            ["project_id"], ["projects.id"], name=op.f("fk_previews_project_id_projects"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("seq", name=op.f("pk_previews")),
        sa.UniqueConstraint("id", name=op.f("uq_previews_id")),
    )
    op.create_index(op.f("ix_previews_project_id"), "previews", ["project_id"])


def downgrade() -> None:
    """Undo; limits and priorities are lost."""
    op.drop_table("previews")
    op.drop_table("workers")
    with op.batch_alter_table("jobs", schema=None) as batch_op:
        for name in _COLUMNS:
            batch_op.drop_column(name)
