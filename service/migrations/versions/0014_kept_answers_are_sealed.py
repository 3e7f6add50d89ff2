"""Kept answers are sealed under a key that comes from the header, of which an HMAC alone is kept."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply. Answers that lie there in the clear go: a request of the last day that is sent again is a new one."""
    op.drop_table("idempotent_answers")
    _create(sa.Column("digest", sa.String(length=64), nullable=False), sa.Column("answer", sa.Text(), nullable=True))


def downgrade() -> None:
    """Undo; only the callers can open what was sealed."""
    op.drop_table("idempotent_answers")
    plain = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")
    _create(sa.Column("key", sa.String(length=255), nullable=False), sa.Column("answer", plain, nullable=True))


def _create(key: sa.Column[str], answer: sa.Column[str]) -> None:
    op.create_table(
        "idempotent_answers",
        sa.Column("seq", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("project_id", sa.String(length=40), nullable=False),
        key,
        sa.Column("fingerprint", sa.String(length=64), nullable=False),
        answer,
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(
            ["project_id"], ["projects.id"], name=op.f("fk_idempotent_answers_project_id_projects")
        ),
        sa.PrimaryKeyConstraint("seq", name=op.f("pk_idempotent_answers")),
        sa.UniqueConstraint("project_id", key.name, name=op.f("uq_idempotent_answers_project_id")),
    )
    op.create_index(op.f("ix_idempotent_answers_created_at"), "idempotent_answers", ["created_at"])
