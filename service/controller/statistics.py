"""SQL of what the gauges show: a few counts over indexes, however many jobs have ended."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, SQLColumnExpression, case, func, select
from sqlalchemy.orm import Session

from service.kit.db import db_now
from service.kit.outbox import OutboxRow
from service.tables.exports import ExportStatus, ModelExportRow
from service.tables.jobs import JobRow, JobState
from service.tables.workers import WorkerRow

UNFINISHED = (JobState.VALIDATING, JobState.QUEUED, JobState.RUNNING, JobState.PAUSED)
PRIORITIES = ("low", "normal", "high")
WAITS = ("worker", "job", "limit")
UNFINISHED_EXPORTS = (ExportStatus.QUEUED, ExportStatus.RUNNING)


class KindCount(NamedTuple):
    """How many there are of a kind, and the age in seconds of the oldest (None if there is none)."""

    kind: tuple[str, ...]
    total: int
    age: float | None


def _count_groups(
    session: Session, kinds: Sequence[Any], since: SQLColumnExpression[Any], *conditions: ColumnElement[bool]
) -> list[KindCount]:
    query = select(*kinds, func.count(), db_now() - func.min(since)).where(*conditions).group_by(*kinds)
    return [KindCount(tuple(row[:-2]), row[-2], row[-1]) for row in session.execute(query)]


def count_jobs(session: Session) -> list[KindCount]:
    """Return the jobs that have not ended, by state."""
    return _count_groups(session, [JobRow.state], JobRow.created_at, JobRow.state.in_(UNFINISHED))


def count_queued_jobs(session: Session) -> list[KindCount]:
    """Return the queued jobs by priority and by what they wait for: a worker, another job, or a limit."""
    low, normal, high = PRIORITIES
    priority = case((JobRow.priority < 0, low), (JobRow.priority > 0, high), else_=normal)
    wait = case((JobRow.waits_for.is_not(None), WAITS[1]), (JobRow.held_by.is_not(None), WAITS[2]), else_=WAITS[0])
    since = func.coalesce(JobRow.queued_at, JobRow.created_at)
    # By names: the values of `case` are parameters, and PostgreSQL takes two of them for different ones.
    queued_jobs = select(priority.label("priority"), wait.label("wait"), since.label("since"))
    rows = queued_jobs.where(JobRow.state == JobState.QUEUED).subquery()
    return _count_groups(session, [rows.c.priority, rows.c.wait], rows.c.since)


def count_exports(session: Session) -> list[KindCount]:
    """Return the exports that wait or are being made, by status."""
    return _count_groups(
        session, [ModelExportRow.status], ModelExportRow.created_at, ModelExportRow.status.in_(UNFINISHED_EXPORTS)
    )


def count_effects(session: Session) -> list[KindCount]:
    """Return the effects to come by topic; the age is that of the oldest that is due."""
    due_time = case((OutboxRow.due_at <= db_now(), OutboxRow.due_at))
    return _count_groups(session, [OutboxRow.topic], due_time, OutboxRow.done_at.is_(None))


def heartbeat_ages(session: Session, *, lease_seconds: float) -> dict[str, float]:
    """Return the age of the oldest renewal of a running job's lease, and of the oldest report of a worker."""
    last_heartbeat = func.min(JobRow.lease_expires_at) - lease_seconds
    of_job = session.scalar(select(db_now() - last_heartbeat).where(JobRow.state == JobState.RUNNING))
    of_worker = session.scalar(select(db_now() - func.min(WorkerRow.seen_at)))
    return {"job": max(of_job or 0.0, 0.0), "worker": max(of_worker or 0.0, 0.0)}


def living_workers(session: Session, *, within: float) -> int:
    """Return how many workers were heard of in the last `within` seconds."""
    return (
        session.scalar(select(func.count()).select_from(WorkerRow).where(WorkerRow.seen_at >= db_now() - within)) or 0
    )
