"""Chains of jobs: what a job starts from and waits for, and what its result is."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_JSON = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")


def upgrade() -> None:
    """Apply. Earlier jobs started from a base of the catalog and left an adapter."""
    with op.batch_alter_table("jobs", schema=None) as batch_op:
        batch_op.add_column(sa.Column("base", sa.String(length=255), nullable=True))
        batch_op.add_column(sa.Column("start_job", sa.String(length=40), nullable=True))
        batch_op.add_column(sa.Column("start_step", sa.Integer(), nullable=True))
        batch_op.add_column(sa.Column("reward_job", sa.String(length=40), nullable=True))
        batch_op.add_column(sa.Column("reward_step", sa.Integer(), nullable=True))
        batch_op.add_column(sa.Column("waits_for", sa.String(length=128), nullable=True))
        batch_op.add_column(sa.Column("lineage", _JSON, nullable=True))
        batch_op.add_column(sa.Column("training_sha256", sa.String(length=64), nullable=True))
        batch_op.add_column(sa.Column("validation_sha256", sa.String(length=64), nullable=True))
    with op.batch_alter_table("fine_tuned_models", schema=None) as batch_op:
        batch_op.add_column(sa.Column("kind", sa.String(length=16), nullable=True))
        batch_op.add_column(sa.Column("manifest_sha256", sa.String(length=64), nullable=True))
    op.execute("UPDATE jobs SET base = model, lineage = '[]'")
    op.execute("UPDATE jobs SET training_sha256 = (SELECT sha256 FROM files WHERE files.id = jobs.training_file)")
    op.execute("UPDATE jobs SET validation_sha256 = (SELECT sha256 FROM files WHERE files.id = jobs.validation_file)")
    op.execute("UPDATE fine_tuned_models SET kind = 'adapter'")
    with op.batch_alter_table("jobs", schema=None) as batch_op:
        batch_op.alter_column("base", existing_type=sa.String(length=255), nullable=False)
        batch_op.alter_column("lineage", existing_type=_JSON, nullable=False)
    with op.batch_alter_table("fine_tuned_models", schema=None) as batch_op:
        batch_op.alter_column("kind", existing_type=sa.String(length=16), nullable=False)
        batch_op.alter_column(
            "base", existing_type=sa.String(length=64), type_=sa.String(length=255), existing_nullable=False
        )


def downgrade() -> None:
    """Undo. Raises where jobs started from other jobs: the earlier schema cannot hold them."""
    chained_jobs = op.get_bind().execute(
        sa.text("SELECT count(*) FROM jobs WHERE base <> model OR start_job IS NOT NULL OR reward_job IS NOT NULL")
    )
    if chained_jobs.scalar_one():
        raise RuntimeError("Some jobs start from other jobs; the schema 0001 cannot hold them.")
    with op.batch_alter_table("jobs", schema=None) as batch_op:
        for column in (
            "base",
            "start_job",
            "start_step",
            "reward_job",
            "reward_step",
            "waits_for",
            "lineage",
            "training_sha256",
            "validation_sha256",
        ):
            batch_op.drop_column(column)
    with op.batch_alter_table("fine_tuned_models", schema=None) as batch_op:
        batch_op.drop_column("kind")
        batch_op.drop_column("manifest_sha256")
        batch_op.alter_column(
            "base", existing_type=sa.String(length=255), type_=sa.String(length=64), existing_nullable=False
        )
