"""SQL of what jobs leave: checkpoints and artifacts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sqlalchemy import delete, or_, select
from sqlalchemy.orm import Session

from service.jobs.states import TERMINAL
from service.jobs.tables import Job, JobArtifact, JobCheckpoint
from service.kit import ids
from service.kit.db import db_now
from service.kit.pagination import fetch_page


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
        existing = JobCheckpoint(id=ids.new_id(ids.CHECKPOINT), job_id=job_id, step=step, expires_at=expires_at)
        session.add(existing)
    existing.metrics = dict(metrics)
    existing.blob_prefix = blob_prefix
    existing.manifest_sha256 = manifest_sha256
    existing.bytes = size
    session.flush()


def latest_checkpoint(session: Session, job_id: str, *, before: int | None = None) -> JobCheckpoint | None:
    """Return the checkpoint with the highest step, or with the highest `before` a step."""
    query = select(JobCheckpoint).where(JobCheckpoint.job_id == job_id)
    if before is not None:
        query = query.where(JobCheckpoint.step < before)
    return session.scalar(query.order_by(JobCheckpoint.step.desc()).limit(1))


def checkpoint_at(session: Session, job_id: str, step: int) -> JobCheckpoint | None:
    """Return the checkpoint of a step."""
    return session.scalar(select(JobCheckpoint).where(JobCheckpoint.job_id == job_id, JobCheckpoint.step == step))


def checkpoint_steps(session: Session, job_id: str) -> Sequence[int]:
    """Return the steps that have a checkpoint."""
    query = select(JobCheckpoint.step).where(JobCheckpoint.job_id == job_id)
    return session.scalars(query.order_by(JobCheckpoint.step)).all()


def all_checkpoints(session: Session, job_id: str) -> Sequence[JobCheckpoint]:
    """Return a job's checkpoints in the order of their steps."""
    return session.scalars(
        select(JobCheckpoint).where(JobCheckpoint.job_id == job_id).order_by(JobCheckpoint.step)
    ).all()


def remove_checkpoint(session: Session, checkpoint: JobCheckpoint) -> None:
    """Delete a checkpoint's row."""
    session.execute(delete(JobCheckpoint).where(JobCheckpoint.seq == checkpoint.seq))


def uses_checkpoint(session: Session, job_id: str, step: int, name: str) -> bool:
    """Tell whether an unfinished job goes on from a checkpoint or asks it, or an adapter lies on it, by its name."""
    starts = (Job.start_job == job_id) & (Job.start_step == step)
    asks = (Job.reward_job == job_id) & (Job.reward_step == step)
    query = select(Job.seq).where(or_(Job.state.not_in(TERMINAL) & or_(starts, asks), Job.base == name))
    return session.scalar(query.limit(1)) is not None


def checkpoint_page(
    session: Session, job_id: str, *, after: str | None, limit: int
) -> tuple[Sequence[JobCheckpoint], bool]:
    """Return one page of a job's checkpoints, newest first."""
    return fetch_page(
        session,
        select(JobCheckpoint),
        scope=[(JobCheckpoint.job_id, job_id)],
        seq=JobCheckpoint.seq,
        public_id=JobCheckpoint.id,
        after=after,
        limit=limit,
        order="desc",
    )


def artifact(session: Session, job_id: str, name: str) -> JobArtifact | None:
    """Return a published artifact of a job."""
    return session.scalar(select(JobArtifact).where(JobArtifact.job_id == job_id, JobArtifact.name == name))


def artifacts(session: Session, job_id: str) -> Sequence[JobArtifact]:
    """Return all published artifacts of a job."""
    return session.scalars(select(JobArtifact).where(JobArtifact.job_id == job_id)).all()


def remove_artifact(session: Session, artifact: JobArtifact) -> None:
    """Delete an artifact's row."""
    session.execute(delete(JobArtifact).where(JobArtifact.seq == artifact.seq))
