"""Exports of models; how long checkpoints and results are kept."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

_JSON = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")


def upgrade() -> None:
    op.create_table(
        "model_exports",
        sa.Column("seq", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("id", sa.String(length=40), nullable=False),
        sa.Column("project_id", sa.String(length=40), nullable=False),
        sa.Column("model", sa.String(length=255), nullable=False),
        sa.Column("job_id", sa.String(length=40), nullable=False),
        sa.Column("step", sa.Integer(), nullable=True),
        sa.Column("format", sa.String(length=16), nullable=False),
        sa.Column("precision", sa.String(length=16), nullable=False),
        sa.Column("filename", sa.String(length=255), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("expires_at", sa.Double(), nullable=False),
        sa.Column("status", sa.String(length=16), nullable=False),
        sa.Column("error", _JSON, nullable=True),
        sa.Column("finished_at", sa.Double(), nullable=True),
        sa.Column("blob_key", sa.String(length=512), nullable=True),
        sa.Column("bytes", sa.BigInteger(), nullable=True),
        sa.Column("sha256", sa.String(length=64), nullable=True),
        sa.Column("verification", _JSON, nullable=True),
        sa.Column("lease_token", sa.Integer(), nullable=False),
        sa.Column("lease_owner", sa.String(length=128), nullable=True),
        sa.Column("lease_expires_at", sa.Double(), nullable=True),
        sa.Column("failures", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_model_exports_job_id_jobs"), ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name=op.f("fk_model_exports_project_id_projects")),
        sa.PrimaryKeyConstraint("seq", name=op.f("pk_model_exports")),
        sa.UniqueConstraint("id", name=op.f("uq_model_exports_id")),
        sa.UniqueConstraint("model", "format", "precision", name=op.f("uq_model_exports_model")),
    )
    with op.batch_alter_table("model_exports", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_model_exports_expires_at"), ["expires_at"], unique=False)
        batch_op.create_index(batch_op.f("ix_model_exports_job_id"), ["job_id"], unique=False)
        batch_op.create_index(batch_op.f("ix_model_exports_project_id"), ["project_id"], unique=False)
        batch_op.create_index("ix_model_exports_status", ["status", "seq"], unique=False)
    with op.batch_alter_table("jobs", schema=None) as batch_op:
        batch_op.add_column(sa.Column("expires_after", _JSON, nullable=True))
        batch_op.add_column(sa.Column("keep_checkpoints", sa.Integer(), nullable=True))
        batch_op.create_index(batch_op.f("ix_jobs_keep_checkpoints"), ["keep_checkpoints"], unique=False)
    for table in ("job_checkpoints", "job_artifacts", "fine_tuned_models"):
        with op.batch_alter_table(table, schema=None) as batch_op:
            batch_op.add_column(sa.Column("expires_at", sa.Double(), nullable=True))
            batch_op.create_index(batch_op.f(f"ix_{table}_expires_at"), ["expires_at"], unique=False)


def downgrade() -> None:
    """Undo. What was to expire stays for good."""
    for table in ("fine_tuned_models", "job_artifacts", "job_checkpoints"):
        with op.batch_alter_table(table, schema=None) as batch_op:
            batch_op.drop_index(batch_op.f(f"ix_{table}_expires_at"))
            batch_op.drop_column("expires_at")
    with op.batch_alter_table("jobs", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_jobs_keep_checkpoints"))
        batch_op.drop_column("keep_checkpoints")
        batch_op.drop_column("expires_after")
    op.drop_table("model_exports")
