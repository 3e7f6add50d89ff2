"""Indexes for lists of any length: jobs by their metadata or without any, files, deliveries."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

_JOBS = sa.table(
    "jobs",
    sa.column("seq", sa.Integer()),
    sa.column("project_id", sa.String()),
    sa.column("metadata", sa.JSON().with_variant(postgresql.JSONB(), "postgresql")),
)


def upgrade() -> None:
    """Apply. The metadata of the jobs that there are becomes searchable."""
    pairs = op.create_table(
        "job_metadata",
        sa.Column("project_id", sa.String(length=40), nullable=False),
        sa.Column("key", sa.String(length=64), nullable=False),
        sa.Column("value", sa.String(length=512), nullable=False),
        sa.Column("job_seq", sa.Integer(), autoincrement=False, nullable=False),
        sa.ForeignKeyConstraint(
            ["job_seq"], ["jobs.seq"], name=op.f("fk_job_metadata_job_seq_jobs"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("project_id", "key", "value", "job_seq", name=op.f("pk_job_metadata")),
        sqlite_with_rowid=False,
    )
    op.create_index(op.f("ix_job_metadata_job_seq"), "job_metadata", ["job_seq"])
    last = 0
    while rows := op.get_bind().execute(_after(last)).all():
        new_rows = [
            {"project_id": row.project_id, "key": key, "value": value, "job_seq": row.seq}
            for row in rows
            for key, value in (row.metadata or {"": ""}).items()
        ]
        op.bulk_insert(pairs, new_rows)
        last = rows[-1].seq
    op.create_index("ix_files_project_seq", "files", ["project_id", "seq"])
    op.create_index("ix_files_project_purpose_seq", "files", ["project_id", "purpose", "seq"])
    op.drop_index("ix_files_project_id", table_name="files")
    op.create_index("ix_webhook_attempts_endpoint_seq", "webhook_attempts", ["endpoint_id", "seq"])
    op.drop_index("ix_webhook_attempts_endpoint_id", table_name="webhook_attempts")


def _after(seq: int) -> sa.Select[tuple[int, str, dict[str, str]]]:
    query = sa.select(_JOBS.c.seq, _JOBS.c.project_id, _JOBS.c.metadata)
    return query.where(_JOBS.c.seq > seq).order_by(_JOBS.c.seq).limit(1000)


def downgrade() -> None:
    op.create_index("ix_webhook_attempts_endpoint_id", "webhook_attempts", ["endpoint_id"])
    op.drop_index("ix_webhook_attempts_endpoint_seq", table_name="webhook_attempts")
    op.create_index("ix_files_project_id", "files", ["project_id"])
    op.drop_index("ix_files_project_purpose_seq", table_name="files")
    op.drop_index("ix_files_project_seq", table_name="files")
    op.drop_table("job_metadata")
