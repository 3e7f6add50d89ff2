"""Limits of projects, the time that jobs have run, the audit log, deletion of projects."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

_SQLITE = (
    "CREATE TRIGGER audit_log_no_{verb} BEFORE {VERB} ON audit_log "
    "BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END"
)
_POSTGRESQL = (
    "CREATE OR REPLACE FUNCTION audit_log_refuse() RETURNS trigger LANGUAGE plpgsql AS "
    "$$ BEGIN RAISE EXCEPTION 'the audit log is append-only'; END $$",
    "CREATE TRIGGER audit_log_no_change BEFORE UPDATE OR DELETE ON audit_log "
    "FOR EACH ROW EXECUTE FUNCTION audit_log_refuse()",
    "CREATE TRIGGER audit_log_no_truncate BEFORE TRUNCATE ON audit_log "
    "FOR EACH STATEMENT EXECUTE FUNCTION audit_log_refuse()",
)


def upgrade() -> None:
    """Apply. The last attempt at each job is counted as the time that it has run."""
    op.add_column("projects", sa.Column("deleted_at", sa.Double(), nullable=True))
    op.add_column("jobs", sa.Column("held_by", sa.String(length=32), nullable=True))
    # The defaults stay: to drop them SQLite would write the whole tables anew.
    op.add_column("job_checkpoints", sa.Column("bytes", sa.BigInteger(), nullable=False, server_default="0"))
    op.add_column("fine_tuned_models", sa.Column("bytes", sa.BigInteger(), nullable=False, server_default="0"))
    _make_limits()
    _make_audit_log()
    op.execute(
        "INSERT INTO training_spans (project_id, job_id, started_at, ended_at) "
        "SELECT project_id, id, started_at, CASE WHEN state = 'running' THEN NULL ELSE finished_at END FROM jobs "
        "WHERE started_at IS NOT NULL AND (state = 'running' OR finished_at IS NOT NULL)"
    )


def _make_limits() -> None:
    op.create_table(
        "project_limits",
        sa.Column("seq", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("project_id", sa.String(length=40), nullable=False),
        sa.Column("name", sa.String(length=32), nullable=False),
        sa.Column("value", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name=op.f("fk_project_limits_project_id_projects")),
        sa.PrimaryKeyConstraint("seq", name=op.f("pk_project_limits")),
        sa.UniqueConstraint("project_id", "name", name=op.f("uq_project_limits_project_id")),
    )
    op.create_table(
        "training_spans",
        sa.Column("seq", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("project_id", sa.String(length=40), nullable=False),
        sa.Column("job_id", sa.String(length=40), nullable=False),
        sa.Column("started_at", sa.Double(), nullable=False),
        sa.Column("ended_at", sa.Double(), nullable=True),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name=op.f("fk_training_spans_project_id_projects")),
        sa.PrimaryKeyConstraint("seq", name=op.f("pk_training_spans")),
    )
    op.create_index("ix_training_spans_project_ended", "training_spans", ["project_id", "ended_at"])
    op.create_index(op.f("ix_training_spans_job_id"), "training_spans", ["job_id"])


def _make_audit_log() -> None:
    op.create_table(
        "audit_log",
        sa.Column("seq", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("id", sa.String(length=40), nullable=False),
        sa.Column("at", sa.Double(), nullable=False),
        sa.Column("type", sa.String(length=64), nullable=False),
        sa.Column("outcome", sa.String(length=16), nullable=False),
        sa.Column("status_code", sa.Integer(), nullable=True),
        sa.Column("actor", sa.String(length=16), nullable=False),
        sa.Column("key_id", sa.String(length=40), nullable=True),
        sa.Column("operator", sa.String(length=64), nullable=True),
        sa.Column("project_id", sa.String(length=40), nullable=True),
        sa.Column("object_id", sa.String(length=320), nullable=True),
        sa.Column("request_id", sa.String(length=128), nullable=True),
        sa.Column("address", sa.String(length=64), nullable=True),
        sa.PrimaryKeyConstraint("seq", name=op.f("pk_audit_log")),
        sa.UniqueConstraint("id", name=op.f("uq_audit_log_id")),
    )
    for column in ("at", "key_id", "project_id", "object_id"):
        op.create_index(op.f(f"ix_audit_log_{column}"), "audit_log", [column])
    if op.get_bind().dialect.name == "postgresql":
        for statement in _POSTGRESQL:
            op.execute(statement)
    else:
        for verb in ("update", "delete"):
            op.execute(_SQLITE.format(verb=verb, VERB=verb.upper()))


def downgrade() -> None:
    """Undo. The audit log, the projects' limits and what was counted are lost."""
    op.drop_table("audit_log")
    if op.get_bind().dialect.name == "postgresql":
        op.execute("DROP FUNCTION audit_log_refuse()")
    op.drop_table("training_spans")
    op.drop_table("project_limits")
    op.drop_column("fine_tuned_models", "bytes")
    op.drop_column("job_checkpoints", "bytes")
    op.drop_column("jobs", "held_by")
    op.drop_column("projects", "deleted_at")
