"""The changes of a job's state. Each writes the state, its event and what must follow in the caller's transaction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy.orm import Session

from service.files.service import RESULT_PURPOSE
from service.files.tables import File
from service.jobs import repository
from service.jobs.errors import StaleLease
from service.jobs.references import model_name
from service.jobs.states import JobState
from service.jobs.tables import Job, JobArtifact
from service.kit import ids, outbox
from service.kit.db import db_now
from service.models.tables import FineTunedModel
from trainer.methods.base import Kinds


@dataclass(frozen=True)
class JobError:
    """Why a job failed, as the wire shows it."""

    code: str
    message: str
    param: str | None = None

    def as_json(self) -> dict[str, Any]:
        """Return the wire's error object."""
        return {"code": self.code, "message": self.message, "param": self.param}


@dataclass(frozen=True)
class PublishedFile:
    """A file of a result that lies complete in the blob store."""

    name: str
    filename: str
    media_type: str
    blob_key: str
    bytes: int
    sha256: str


def queue_up(session: Session, job_id: str) -> bool:
    """The dataset is good: validating → queued, with the outbox row that sends the id to the queue.

    A job that goes on from one that has not ended is sent there by `release` instead.
    """
    if not repository.move(session, job_id, JobState.QUEUED):
        return False
    repository.add_event(session, job_id, "Files validated, moving job to queued state")
    job = repository.by_id(session, job_id)
    if job is not None and job.waits_for:
        repository.add_event(session, job_id, f"Waiting for {job.waits_for.replace(' ', ' and ')} to succeed")
    else:
        outbox.add(session, outbox.Topic.ENQUEUE_JOB, job_id=job_id)
    return True


def release(session: Session, job_id: str) -> bool:
    """All that a queued job waited for is there: send it to the queue. False where it is not queued any more."""
    if not repository.wait_for(session, job_id, ()):
        return False
    repository.add_event(session, job_id, "What the job goes on from is ready")
    outbox.add(session, outbox.Topic.ENQUEUE_JOB, job_id=job_id)
    return True


def start(session: Session, job_id: str, *, owner: str, lease_seconds: float) -> Job | None:
    """Claim a queued job for a worker. None where it is not queued: another has it, or it was cancelled."""
    job = repository.claim(session, job_id, owner=owner, lease_seconds=lease_seconds)
    if job is not None:
        verb = "started" if job.lease_token == 1 else f"started again (attempt {job.lease_token})"
        repository.add_event(session, job_id, f"Fine-tuning job {verb}")
    return job


def give_back(session: Session, job_id: str, token: int, *, reason: str) -> None:
    """The worker is being stopped: running → queued without counting a failure. Raises StaleLease."""
    moved = repository.move(
        session, job_id, JobState.QUEUED, token=token, lease_expires_at=None, preemptions=Job.preemptions + 1
    )
    if not moved:
        raise StaleLease(job_id)
    repository.add_event(session, job_id, f"Job moved back to the queue: {reason}", level="warn")
    outbox.add(session, outbox.Topic.ENQUEUE_JOB, job_id=job_id)


def retry_or_fail(session: Session, job: Job, *, token: int, error: JobError, max_failures: int) -> None:
    """An attempt died: running → queued while the budget lasts, then → failed. Raises StaleLease."""
    failures = job.failures + 1
    if failures >= max_failures:
        fail(session, job.id, error, token=token, failures=failures)
        return
    moved = repository.move(session, job.id, JobState.QUEUED, token=token, lease_expires_at=None, failures=failures)
    if not moved:
        raise StaleLease(job.id)
    repository.add_event(
        session,
        job.id,
        f"Attempt {job.lease_token} failed ({error.message}); trying again, failure {failures} of {max_failures}",
        level="warn",
    )
    outbox.add(session, outbox.Topic.ENQUEUE_JOB, job_id=job.id)


def fail(session: Session, job_id: str, error: JobError, *, token: int | None = None, **values: Any) -> None:
    """End a job with an error that its owner can act on. Raises StaleLease."""
    if not repository.move(
        session,
        job_id,
        JobState.FAILED,
        token=token,
        error=error.as_json(),
        finished_at=db_now(),
        lease_expires_at=None,
        estimated_finish=None,
        **values,
    ):
        raise StaleLease(job_id)
    repository.add_event(session, job_id, f"The job failed: {error.message}", level="error")
    _notify(session, job_id, "failed")


def cancel(session: Session, job_id: str) -> bool:
    """Cancel a job in any state but an ended one; its worker notices at its next look. False where it had ended."""
    moved = repository.move(
        session,
        job_id,
        JobState.CANCELLED,
        finished_at=db_now(),
        lease_expires_at=None,
        estimated_finish=None,
    )
    if moved:
        repository.add_event(session, job_id, "The job was cancelled")
        _notify(session, job_id, "cancelled")
    return moved


def succeed(
    session: Session,
    job: Job,
    *,
    token: int,
    trained_tokens: int,
    kind: Kinds,
    blob_prefix: str,
    manifest_sha256: str,
    result_csv: PublishedFile,
    artifacts: Sequence[PublishedFile],
    organization: str,
) -> str:
    """Publish a result in one transaction and return the model's name. Raises StaleLease: then nothing is published."""
    name = model_name(job, organization)
    result = File(
        id=ids.new_id(ids.FILE),
        project_id=job.project_id,
        filename=result_csv.filename,
        purpose=RESULT_PURPOSE,
        bytes=result_csv.bytes,
        sha256=result_csv.sha256,
        blob_key=result_csv.blob_key,
    )
    if not repository.move(
        session,
        job.id,
        JobState.SUCCEEDED,
        token=token,
        finished_at=db_now(),
        lease_expires_at=None,
        estimated_finish=None,
        trained_tokens=trained_tokens,
        fine_tuned_model=name,
        result_file=result.id,
    ):
        raise StaleLease(job.id)
    session.add(result)
    session.add(
        FineTunedModel(
            id=name,
            project_id=job.project_id,
            base=job.base,
            kind=kind,
            job_id=job.id,
            blob_prefix=blob_prefix,
            manifest_sha256=manifest_sha256,
        )
    )
    session.add_all(JobArtifact(job_id=job.id, **vars(artifact)) for artifact in artifacts)
    repository.add_event(session, job.id, f"New fine-tuned model created: {name}")
    repository.add_event(session, job.id, "The job has successfully completed")
    _notify(session, job.id, "succeeded")
    return name


def _notify(session: Session, job_id: str, outcome: str) -> None:
    outbox.add(
        session,
        outbox.Topic.SEND_WEBHOOK,
        event_id=ids.new_id(ids.WEBHOOK_EVENT),
        type=f"fine_tuning.job.{outcome}",
        object_id=job_id,
    )
