"""What a permission lets other projects do with the weights, and what they may read of the jobs behind them."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None

_JOBS = sa.table(
    "jobs",
    sa.column("id", sa.String()),
    sa.column("project_id", sa.String()),
    sa.column("start_job", sa.String()),
    sa.column("reward_job", sa.String()),
    sa.column("foreign_parents", sa.String()),
    sa.column("lineage", sa.JSON().with_variant(postgresql.JSONB(), "postgresql")),
)


def upgrade() -> None:
    """Apply. What is shared already stays as it was; of other projects' jobs a lineage keeps the shared name alone."""
    for table in ("checkpoint_permissions", "jobs"):
        with op.batch_alter_table(table, schema=None) as batch_op:
            batch_op.add_column(
                sa.Column("adapter_download", sa.String(length=8), nullable=False, server_default="allowed")
            )
    with op.batch_alter_table("jobs", schema=None) as batch_op:
        batch_op.add_column(sa.Column("foreign_parents", sa.String(length=128), nullable=True))
    _hide_other_projects()


def _hide_other_projects() -> None:
    connection = op.get_bind()
    owners = {row.id: row.project_id for row in connection.execute(sa.select(_JOBS.c.id, _JOBS.c.project_id))}
    in_a_chain = sa.or_(_JOBS.c.start_job.is_not(None), _JOBS.c.reward_job.is_not(None))
    columns = (_JOBS.c.id, _JOBS.c.project_id, _JOBS.c.start_job, _JOBS.c.reward_job, _JOBS.c.lineage)
    for job in connection.execute(sa.select(*columns).where(in_a_chain)).all():

        def is_foreign(parent: str | None, own: str = job.project_id) -> bool:
            return parent is not None and owners.get(parent, own) != own

        parents = [parent for parent in dict.fromkeys((job.start_job, job.reward_job)) if is_foreign(parent)]
        values: dict[str, Any] = {"foreign_parents": " ".join(parents) or None}
        places = [place for place, entry in enumerate(job.lineage) if is_foreign(entry.get("job_id"))]
        if places:
            shared_link, *own_links = job.lineage[places[-1] :]
            values["lineage"] = [dict.fromkeys(shared_link) | {"model": shared_link["model"]}, *own_links]
        if parents or places:
            connection.execute(sa.update(_JOBS).where(_JOBS.c.id == job.id).values(values))


def downgrade() -> None:
    """Undo. Refused while weights are held back: the earlier release would hand them out."""
    for table in ("checkpoint_permissions", "jobs"):
        query = sa.text(f"SELECT count(*) FROM {table} WHERE adapter_download <> 'allowed'")  # noqa: S608 - no input
        if op.get_bind().execute(query).scalar_one():
            raise RuntimeError(
                "Some models are shared with adapter_download blocked, or were trained from such a model, and the "
                "schema 0016 would let them be downloaded: withdraw those permissions and delete those jobs first."
            )
    with op.batch_alter_table("jobs", schema=None) as batch_op:
        batch_op.drop_column("foreign_parents")
    for table in ("checkpoint_permissions", "jobs"):
        with op.batch_alter_table(table, schema=None) as batch_op:
            batch_op.drop_column("adapter_download")
