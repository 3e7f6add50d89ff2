"""SQL of what jobs leave: checkpoints and artifacts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sqlalchemy import delete, or_, select
from sqlalchemy.orm import Session

from service.jobs.states import TERMINAL
from service.kit import ids
from service.kit.db import db_now
from service.kit.pagination import fetch_page
from service.tables.jobs import JobArtifactRow, JobCheckpointRow, JobRow


def add_checkpoint(
    session: Session,
    job_id: str,
    *,
    step: int,
    metrics: Mapping[str, float],
    blob_prefix: str,
    manifest_sha256: str,
    expires_in: float | None = None,
    size: int = 0,
) -> None:
    """Record a checkpoint of `size` bytes that lies complete in the blob store.

    A later attempt's copy replaces an earlier one.
    """
    existing = checkpoint_at(session, job_id, step)
    if existing is None:
        expires_at = None if expires_in is None else db_now() + expires_in
        existing = JobCheckpointRow(id=ids.new_id(ids.CHECKPOINT), job_id=job_id, step=step, expires_at=expires_at)
        session.add(existing)
    existing.metrics = dict(metrics)
    existing.blob_prefix = blob_prefix
    existing.manifest_sha256 = manifest_sha256
    existing.bytes = size
    session.flush()


def latest_checkpoint(session: Session, job_id: str, *, before: int | None = None) -> JobCheckpointRow | None:
    """Return the checkpoint with the highest step, or with the highest `before` a step."""
    query = select(JobCheckpointRow).where(JobCheckpointRow.job_id == job_id)
    if before is not None:
        query = query.where(JobCheckpointRow.step < before)
    return session.scalar(query.order_by(JobCheckpointRow.step.desc()).limit(1))


def checkpoint_at(session: Session, job_id: str, step: int) -> JobCheckpointRow | None:
    """Return the checkpoint of a step."""
    return session.scalar(
        select(JobCheckpointRow).where(JobCheckpointRow.job_id == job_id, JobCheckpointRow.step == step)
    )


def checkpoint_steps(session: Session, job_id: str) -> Sequence[int]:
    """Return the steps that have a checkpoint."""
    query = select(JobCheckpointRow.step).where(JobCheckpointRow.job_id == job_id)
    return session.scalars(query.order_by(JobCheckpointRow.step)).all()


def all_checkpoints(session: Session, job_id: str) -> Sequence[JobCheckpointRow]:
    """Return a job's checkpoints in the order of their steps."""
    return session.scalars(
        select(JobCheckpointRow).where(JobCheckpointRow.job_id == job_id).order_by(JobCheckpointRow.step)
    ).all()


def remove_checkpoint(session: Session, checkpoint: JobCheckpointRow) -> None:
    """Delete a checkpoint's row."""
    session.execute(delete(JobCheckpointRow).where(JobCheckpointRow.seq == checkpoint.seq))


def uses_checkpoint(session: Session, job_id: str, step: int, name: str) -> bool:
    """Return whether an unfinished job starts from a checkpoint or is rewarded by it, or any job has it as its base."""
    starts = (JobRow.start_job == job_id) & (JobRow.start_step == step)
    asks = (JobRow.reward_job == job_id) & (JobRow.reward_step == step)
    query = select(JobRow.seq).where(or_(JobRow.state.not_in(TERMINAL) & or_(starts, asks), JobRow.base == name))
    return session.scalar(query.limit(1)) is not None


def checkpoint_page(
    session: Session, job_id: str, *, after: str | None, limit: int
) -> tuple[Sequence[JobCheckpointRow], bool]:
    """Return one page of a job's checkpoints, newest first."""
    return fetch_page(
        session,
        select(JobCheckpointRow),
        scope=[(JobCheckpointRow.job_id, job_id)],
        seq=JobCheckpointRow.seq,
        public_id=JobCheckpointRow.id,
        after=after,
        limit=limit,
        order="desc",
    )


def find_artifact(session: Session, job_id: str, name: str) -> JobArtifactRow | None:
    """Return a published artifact of a job."""
    return session.scalar(select(JobArtifactRow).where(JobArtifactRow.job_id == job_id, JobArtifactRow.name == name))


def all_artifacts(session: Session, job_id: str) -> Sequence[JobArtifactRow]:
    """Return all published artifacts of a job."""
    return session.scalars(select(JobArtifactRow).where(JobArtifactRow.job_id == job_id)).all()


def remove_artifact(session: Session, artifact: JobArtifactRow) -> None:
    """Delete an artifact's row."""
    session.execute(delete(JobArtifactRow).where(JobArtifactRow.seq == artifact.seq))
