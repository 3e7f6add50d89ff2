"""Projects take turns at workers and webhooks; what is kept of the operator's receiver has no secret."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None

_IN_LINE = sa.text("state = 'queued' AND waits_for IS NULL AND held_by IS NULL")
_PENDING = sa.text("done_at IS NULL")
_ATTEMPTS = sa.table(
    "webhook_attempts",
    sa.column("seq", sa.Integer()),
    sa.column("endpoint_id", sa.String()),
    sa.column("url", sa.Text()),
    sa.column("error", sa.Text()),
)
_OUTBOX = sa.table(
    "outbox", sa.column("seq", sa.Integer()), sa.column("lane", sa.String()), sa.column("error", sa.Text())
)
_BATCH = 1000
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^\s'\"<>]+|/[^\s'\"<>?#]*[?#][^\s'\"<>]*")


def upgrade() -> None:
    """Apply. The tries to reach the operator's receiver lose the query of its URL, also if an answer contained it."""
    op.create_table(
        "project_turns",
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("project_id", sa.String(length=40), nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name=op.f("fk_project_turns_project_id_projects")),
        sa.PrimaryKeyConstraint("kind", "project_id", name=op.f("pk_project_turns")),
    )
    op.create_index(
        "ix_jobs_in_line",
        "jobs",
        ["state", "project_id", sa.text("priority DESC"), "seq", "retry_at"],
        sqlite_where=_IN_LINE,
        postgresql_where=_IN_LINE,
    )
    op.create_index(
        "ix_outbox_pending", "outbox", ["topic", "lane", "due_at"], sqlite_where=_PENDING, postgresql_where=_PENDING
    )
    connection = op.get_bind()
    for seq, url, error in _rows(_ATTEMPTS, _ATTEMPTS.c.endpoint_id.is_(None), _ATTEMPTS.c.url, _ATTEMPTS.c.error):
        values = {"url": _without_secrets(url), "error": _cleaned(error)}
        if values != {"url": url, "error": error}:
            connection.execute(sa.update(_ATTEMPTS).where(_ATTEMPTS.c.seq == seq).values(**values))
    for seq, error in _rows(_OUTBOX, _OUTBOX.c.lane == "settings", _OUTBOX.c.error):
        if _cleaned(error) != error:
            connection.execute(sa.update(_OUTBOX).where(_OUTBOX.c.seq == seq).values(error=_cleaned(error)))


def downgrade() -> None:
    """Undo. What the URLs have lost does not come back; every turn is forgotten."""
    op.drop_index("ix_outbox_pending", table_name="outbox")
    op.drop_index("ix_jobs_in_line", table_name="jobs")
    op.drop_table("project_turns")


def _rows(
    table: sa.TableClause, condition: sa.ColumnElement[bool], *columns: sa.ColumnElement[Any]
) -> Iterator[sa.Row[Any]]:
    last = 0
    query = sa.select(table.c.seq, *columns).order_by(table.c.seq).limit(_BATCH)
    while rows := op.get_bind().execute(query.where(condition, table.c.seq > last)).all():
        yield from rows
        last = rows[-1].seq


def _cleaned(error: str | None) -> str | None:
    return None if error is None else _URL.sub(lambda match: _without_secrets(match[0]), error)


def _without_secrets(url: str) -> str:
    try:
        parts = urlsplit(url)
    except ValueError:
        return "(a URL that cannot be read)"
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))
