"""SQL that only the controller needs."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import delete, func, select, tuple_
from sqlalchemy.orm import Session

from service.files.tables import File
from service.jobs.states import TERMINAL, JobState
from service.jobs.tables import Job, JobArtifact, JobCheckpoint
from service.kit.db import db_now
from service.kit.outbox import OutboxRow
from service.models.tables import FineTunedModel

Cursor = tuple[float, int]


def lock_expired(session: Session, job_id: str) -> Job | None:
    """Return a running job whose lease has expired, locked so that its worker cannot renew meanwhile.

    None where another transaction has it: that of its worker, which may have fallen silent in it.
    """
    query = select(Job).where(Job.id == job_id, Job.state == JobState.RUNNING, Job.lease_expires_at < db_now())
    return session.scalar(query.with_for_update(skip_locked=True))


def validating(session: Session, *, apart_from: Sequence[str], per_project: int) -> list[Job]:
    """Return jobs that wait for the check of their files: the oldest `per_project` of each project."""
    place = func.row_number().over(partition_by=Job.project_id, order_by=Job.seq).label("place")
    waiting = select(Job.seq, place).where(Job.state == JobState.VALIDATING, Job.id.not_in(apart_from)).subquery()
    query = select(Job).join(waiting, waiting.c.seq == Job.seq).where(waiting.c.place <= per_project)
    return list(session.scalars(query.order_by(Job.seq)))


def traceparents(session: Session, job_ids: Sequence[str]) -> dict[str, str | None]:
    """Return the traces that jobs belong to."""
    query = select(Job.id, Job.traceparent).where(Job.id.in_(job_ids))
    return {row.id: row.traceparent for row in session.execute(query)}


def ended_after(session: Session, cursor: Cursor, *, age: float, limit: int) -> Sequence[Job]:
    """Return jobs that ended after `cursor` (end, seq) and at least `age` seconds ago, in the order of their ends."""
    query = (
        select(Job)
        .where(
            Job.state.in_(TERMINAL),
            Job.finished_at <= db_now() - age,
            tuple_(Job.finished_at, Job.seq) > cursor,
        )
        .order_by(Job.finished_at, Job.seq)
        .limit(limit)
    )
    return session.scalars(query).all()


def published_blobs(session: Session, job: Job) -> tuple[frozenset[str], frozenset[str]]:
    """Return the keys and the prefixes of blobs that rows refer to."""
    keys = {*session.scalars(select(JobArtifact.blob_key).where(JobArtifact.job_id == job.id))}
    keys |= {*session.scalars(select(File.blob_key).where(File.id == job.result_file))}
    prefixes = {*session.scalars(select(JobCheckpoint.blob_prefix).where(JobCheckpoint.job_id == job.id))}
    prefixes |= {*session.scalars(select(FineTunedModel.blob_prefix).where(FineTunedModel.job_id == job.id))}
    return frozenset(keys), frozenset(prefixes)


def forget_done(session: Session, *, age: float) -> None:
    """Drop outbox rows that were done `age` seconds ago."""
    session.execute(delete(OutboxRow).where(OutboxRow.done_at < db_now() - age))


def expired_checkpoints(session: Session, *, after: int, limit: int) -> Sequence[JobCheckpoint]:
    """Return checkpoints whose time is over, from a place in their order on."""
    query = select(JobCheckpoint).where(JobCheckpoint.expires_at <= db_now(), JobCheckpoint.seq > after)
    return session.scalars(query.order_by(JobCheckpoint.seq).limit(limit)).all()


def expired_results(session: Session, *, after: int, limit: int) -> Sequence[tuple[int, str]]:
    """Return places and ids of jobs whose results' time is over, from a place on."""
    artifacts = select(JobArtifact.job_id).where(JobArtifact.expires_at <= db_now())
    due = artifacts.union(select(FineTunedModel.job_id).where(FineTunedModel.expires_at <= db_now()))
    query = select(Job.seq, Job.id).where(Job.id.in_(due), Job.seq > after).order_by(Job.seq).limit(limit)
    return [(row.seq, row.id) for row in session.execute(query)]


def with_more_checkpoints(session: Session, *, after: int, limit: int) -> Sequence[tuple[int, str]]:
    """Return places and ids of jobs that have more checkpoints than they asked to keep, from a place on."""
    count = select(func.count()).where(JobCheckpoint.job_id == Job.id).scalar_subquery()
    query = select(Job.seq, Job.id).where(
        Job.keep_checkpoints.is_not(None), count > Job.keep_checkpoints, Job.seq > after
    )
    return [(row.seq, row.id) for row in session.execute(query.order_by(Job.seq).limit(limit))]
