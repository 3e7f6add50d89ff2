"""SQL that only the controller needs."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import delete, func, select, tuple_
from sqlalchemy.orm import Session

from service.jobs.states import TERMINAL
from service.kit.db import db_now
from service.kit.outbox import OutboxRow
from service.tables.files import FileRow
from service.tables.jobs import JobArtifactRow, JobCheckpointRow, JobRow, JobState
from service.tables.models import FineTunedModelRow

Cursor = tuple[float, int]


def lock_expired(session: Session, job_id: str) -> JobRow | None:
    """Return a running job with an expired lease, locked so that its worker cannot renew it meanwhile.

    None if another transaction has it: that of its worker, which may have stopped in the middle of one.
    """
    query = select(JobRow).where(
        JobRow.id == job_id, JobRow.state == JobState.RUNNING, JobRow.lease_expires_at < db_now()
    )
    # Skipped rather than waited for: the next pass comes in a moment, and a frozen transaction must not stop this
    # step.
    return session.scalar(query.with_for_update(skip_locked=True))


def validating_jobs(session: Session, *, apart_from: Sequence[str], per_project: int) -> list[JobRow]:
    """Return jobs that wait for the check of their files: the oldest `per_project` of each project."""
    place = func.row_number().over(partition_by=JobRow.project_id, order_by=JobRow.seq).label("place")
    waiting = (
        select(JobRow.seq, place).where(JobRow.state == JobState.VALIDATING, JobRow.id.not_in(apart_from)).subquery()
    )
    query = select(JobRow).join(waiting, waiting.c.seq == JobRow.seq).where(waiting.c.place <= per_project)
    return list(session.scalars(query.order_by(JobRow.seq)))


def job_traceparents(session: Session, job_ids: Sequence[str]) -> dict[str, str | None]:
    """Return the traces that jobs belong to."""
    query = select(JobRow.id, JobRow.traceparent).where(JobRow.id.in_(job_ids))
    return {row.id: row.traceparent for row in session.execute(query)}


def fetch_jobs_ended_after(session: Session, cursor: Cursor, *, age: float, limit: int) -> Sequence[JobRow]:
    """Return jobs that ended after `cursor` (end, seq) and at least `age` seconds ago, in the order of their ends."""
    query = (
        select(JobRow)
        .where(
            JobRow.state.in_(TERMINAL),
            JobRow.finished_at <= db_now() - age,
            # With `seq`, since several jobs may end at the same time and a page may end between them.
            tuple_(JobRow.finished_at, JobRow.seq) > cursor,
        )
        .order_by(JobRow.finished_at, JobRow.seq)
        .limit(limit)
    )
    return session.scalars(query).all()


def fetch_published_blobs(session: Session, job: JobRow) -> tuple[frozenset[str], frozenset[str]]:
    """Return the keys and the prefixes of blobs that rows refer to."""
    keys = {*session.scalars(select(JobArtifactRow.blob_key).where(JobArtifactRow.job_id == job.id))}
    keys |= {*session.scalars(select(FileRow.blob_key).where(FileRow.id == job.result_file))}
    prefixes = {*session.scalars(select(JobCheckpointRow.blob_prefix).where(JobCheckpointRow.job_id == job.id))}
    prefixes |= {*session.scalars(select(FineTunedModelRow.blob_prefix).where(FineTunedModelRow.job_id == job.id))}
    return frozenset(keys), frozenset(prefixes)


def forget_done(session: Session, *, age: float) -> None:
    """Drop outbox rows that were done `age` seconds ago."""
    session.execute(delete(OutboxRow).where(OutboxRow.done_at < db_now() - age))


def fetch_expired_checkpoints(session: Session, *, after: int, limit: int) -> Sequence[JobCheckpointRow]:
    """Return expired checkpoints, from a place in their order on."""
    query = select(JobCheckpointRow).where(JobCheckpointRow.expires_at <= db_now(), JobCheckpointRow.seq > after)
    return session.scalars(query.order_by(JobCheckpointRow.seq).limit(limit)).all()


def fetch_expired_results(session: Session, *, after: int, limit: int) -> Sequence[tuple[int, str]]:
    """Return places and ids of jobs with expired results, from a place on."""
    artifacts = select(JobArtifactRow.job_id).where(JobArtifactRow.expires_at <= db_now())
    job_ids = artifacts.union(select(FineTunedModelRow.job_id).where(FineTunedModelRow.expires_at <= db_now()))
    query = (
        select(JobRow.seq, JobRow.id)
        .where(JobRow.id.in_(job_ids), JobRow.seq > after)
        .order_by(JobRow.seq)
        .limit(limit)
    )
    return [(row.seq, row.id) for row in session.execute(query)]


def with_more_checkpoints(session: Session, *, after: int, limit: int) -> Sequence[tuple[int, str]]:
    """Return places and ids of jobs that have more checkpoints than they asked to keep, from a place on."""
    count = select(func.count()).where(JobCheckpointRow.job_id == JobRow.id).scalar_subquery()
    query = select(JobRow.seq, JobRow.id).where(
        JobRow.keep_checkpoints.is_not(None), count > JobRow.keep_checkpoints, JobRow.seq > after
    )
    return [(row.seq, row.id) for row in session.execute(query.order_by(JobRow.seq).limit(limit))]
