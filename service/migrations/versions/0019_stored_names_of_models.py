"""Jobs keep the name of their model from their creation on, whatever becomes of the setting that it was made of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from alembic import context, op

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None

_BATCH = 1000
_IN_LINE = sa.text("state = 'queued' AND waits_for IS NULL AND held_by IS NULL")
_NAME = sa.String(length=255)
_JOBS = sa.table(
    "jobs",
    sa.column("seq", sa.Integer()),
    sa.column("id", sa.String()),
    sa.column("base", sa.String()),
    sa.column("suffix", sa.String()),
    sa.column("state", sa.String()),
    sa.column("fine_tuned_model", sa.String()),
)


def upgrade() -> None:
    """Apply. Each job gets the name by which the release before would have answered, by the same setting."""
    # Previews under way have no name in them, and nobody waits for them while the schema changes.
    op.execute("DELETE FROM previews")
    _name_unfinished_jobs(context.config.attributes["organization"])
    # SQLite makes the table anew, and what it reads of this index for that has no DESC.
    op.drop_index("ix_jobs_in_line", table_name="jobs")
    with op.batch_alter_table("jobs", schema=None) as batch_op:
        batch_op.alter_column("fine_tuned_model", new_column_name="model_name", existing_type=_NAME, nullable=False)
    op.create_index(op.f("ix_jobs_model_name"), "jobs", ["model_name"])
    _index_jobs_in_line()


def downgrade() -> None:
    """Undo. Jobs that have not succeeded are named by the setting again."""
    op.drop_index("ix_jobs_in_line", table_name="jobs")
    op.drop_index(op.f("ix_jobs_model_name"), table_name="jobs")
    with op.batch_alter_table("jobs", schema=None) as batch_op:
        batch_op.alter_column("model_name", new_column_name="fine_tuned_model", existing_type=_NAME, nullable=True)
    op.execute(sa.update(_JOBS).where(_JOBS.c.state != "succeeded").values(fine_tuned_model=None))
    _index_jobs_in_line()


def _name_unfinished_jobs(organization: str) -> None:
    connection = op.get_bind()
    renamed = sa.update(_JOBS).where(_JOBS.c.seq == sa.bindparam("job")).values(fine_tuned_model=sa.bindparam("name"))
    query = sa.select(_JOBS.c.seq, _JOBS.c.id, _JOBS.c.base, _JOBS.c.suffix).where(_JOBS.c.fine_tuned_model.is_(None))
    while jobs := connection.execute(query.order_by(_JOBS.c.seq).limit(_BATCH)).all():
        connection.execute(renamed, _names_of(jobs, organization))


def _names_of(jobs: Sequence[sa.Row[Any]], organization: str) -> list[dict[str, Any]]:
    names: list[dict[str, Any]] = []
    for job in jobs:
        root = job.base.split(":")[1] if job.base.startswith("ft:") else job.base
        names.append({"job": job.seq, "name": f"ft:{root}:{organization}:{job.suffix or ''}:{job.id[-8:]}"})
    return names


def _index_jobs_in_line() -> None:
    op.create_index(
        "ix_jobs_in_line",
        "jobs",
        ["state", "project_id", sa.text("priority DESC"), "seq", "retry_at"],
        sqlite_where=_IN_LINE,
        postgresql_where=_IN_LINE,
    )
