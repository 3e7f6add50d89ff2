"""The changes of a job's state. Each writes the state, its event and what must follow in the caller's transaction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy.orm import Session

from service.files.service import RESULT_PURPOSE
from service.jobs import repository, results_repository, retention
from service.jobs.attempts import count_end, reason_of
from service.jobs.errors import StaleLease
from service.jobs.parents import shown_waits
from service.jobs.states import TERMINAL
from service.kit import ids, metrics, outbox, project_turns
from service.kit.db import after_commit, db_now
from service.kit.project_turns import TurnKind
from service.limits import service as limits
from service.limits.service import LimitHold
from service.limits.values import UNLIMITED, QuotaLimits
from service.tables.files import FileRow
from service.tables.jobs import JobArtifactRow, JobRow, JobState
from service.tables.models import FineTunedModelRow
from trainer.contract.methods.base import Kinds

PAUSE_FACTOR, LONGEST_PAUSE = 4, 600.0
"""By how much each pause after a failure is longer than the one before, and the longest, in seconds."""


@dataclass(frozen=True)
class JobFailureReason:
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

    A job that starts from one that has not ended is sent there by `release_job` instead; one that its owner asked to
    pause becomes `paused`.
    """
    job = repository.lock_job(session, job_id)
    if job is None or job.state != JobState.VALIDATING:
        return False
    if job.pause_requested:
        repository.add_event(session, job_id, "Files validated")
        return _pause_now(session, job_id)
    repository.move_job(session, job_id, JobState.QUEUED)
    repository.add_event(session, job_id, "Files validated, moving job to queued state")
    if job.waits_for:
        repository.add_event(session, job_id, f"Waiting for {' and '.join(shown_waits(job))} to succeed")
    else:
        # Not pushed here: before the commit a worker would not see the row, after it a crash could lose the push.
        outbox.add_effect(session, outbox.Topic.ENQUEUE_JOB, job_id=job_id)
    return True


def release_job(session: Session, job_id: str) -> bool:
    """All that a queued job waited for is there: send it to the queue. False if it is not queued any more."""
    # The update is conditional on the state, so a job that was cancelled or paused since the look gets no queue entry.
    if not repository.wait_for(session, job_id, ()):
        return False
    repository.add_event(session, job_id, "The parent model is ready")
    outbox.add_effect(session, outbox.Topic.ENQUEUE_JOB, job_id=job_id)
    return True


def start_job(
    session: Session, job_id: str, *, owner: str, lease_seconds: float, defaults: QuotaLimits = UNLIMITED
) -> JobRow | None:
    """Claim a queued job for a worker. None if it is not queued (another has it, or it was cancelled), or is held.

    `defaults` are the limits of projects that have none of their own.
    """
    waiting = repository.lock_job(session, job_id)
    if waiting is None or waiting.state != JobState.QUEUED:
        return None
    why = limits.hold_of(session, defaults, waiting.project_id)
    if why is not None:
        hold_job(session, waiting, why)
        return None
    job = repository.claim_job(session, job_id, owner=owner, lease_seconds=lease_seconds)
    if job is not None:
        project_turns.note_turn(session, TurnKind.JOB, job.project_id)
        verb = "started" if job.lease_token == 1 else f"started again (attempt {job.lease_token})"
        repository.add_event(session, job_id, f"Fine-tuning job {verb}")
    return job


def hold_job(session: Session, job: JobRow, why: LimitHold) -> None:
    """Keep a queued job from starting for a limit of its project; recorded once for each reason."""
    if job.held_by != why.reason:
        repository.set_hold(session, job.id, why.reason)
        repository.add_event(session, job.id, f"{why.message}.", level="warn", data={"held_by": why.reason})


def unhold_job(session: Session, job_id: str) -> None:
    """The limits allow a held job to start: send it to the queue. The job is locked."""
    repository.set_hold(session, job_id, None)
    repository.add_event(session, job_id, "The project's limits allow the job to start")
    outbox.add_effect(session, outbox.Topic.ENQUEUE_JOB, job_id=job_id)


def requeue_job(session: Session, job_id: str, token: int, *, reason: str) -> None:
    """The worker is being stopped: running → queued without counting a failure. Raises StaleLease."""
    message = f"Job moved back to the queue: {reason}"
    _let_go(session, job_id, token, message=message, reason="preempted", preemptions=JobRow.preemptions + 1)


def complete_pause(session: Session, job_id: str, token: int) -> None:
    """The trainer was stopped for a requested pause: running → paused. Raises StaleLease.

    If the owner has resumed the job meanwhile, it returns to the queue.
    """
    _let_go(session, job_id, token, message="Job moved back to the queue: it was resumed", reason="paused")


def pause_job(session: Session, job_id: str) -> bool:
    """Pause a waiting job now, a validating or running one as soon as it can be. False if it has ended."""
    job = repository.lock_job(session, job_id)
    if job is None or job.state in TERMINAL:
        return False
    if job.state == JobState.QUEUED:
        return _pause_now(session, job_id)
    # A running job is only marked: its worker sees that within its poll interval, and moves the job with its token.
    if job.state != JobState.PAUSED and not job.pause_requested:
        job.pause_requested = True
        session.flush()
        repository.add_event(session, job_id, "Pausing the job")
    return True


def resume_job(session: Session, job_id: str) -> bool:
    """Resume a paused job, or cancel a pause that has not happened yet. False if there is neither."""
    job = repository.lock_job(session, job_id)
    if job is None or job.state in TERMINAL or not (job.state == JobState.PAUSED or job.pause_requested):
        return False
    # Its worker may be stopping the trainer already: `_let_go` reads the mark again.
    if job.state != JobState.PAUSED:
        job.pause_requested = False
        session.flush()
        repository.add_event(session, job_id, "The pause was cancelled")
        return True
    repository.move_job(session, job_id, JobState.QUEUED)
    repository.add_event(session, job_id, "The job was resumed")
    if not job.waits_for:
        outbox.add_effect(session, outbox.Topic.ENQUEUE_JOB, job_id=job_id)
    return True


def retry_or_fail_job(
    session: Session,
    job: JobRow,
    *,
    token: int,
    error: JobFailureReason,
    max_failures: int,
    crash: bool = False,
    first_pause: float = 0.0,
) -> None:
    """An attempt died: running → queued (or paused) while the budget lasts, then → failed. Raises StaleLease.

    Failures with a reason are counted together. Crashes, without a reason, count in a row: one that came after
    a newer checkpoint than the last is the first again. Each time the job waits longer, `first_pause` seconds at first.
    """
    if crash:
        count, values = _count_crash(session, job)
        attempt_count = f"crash {count} of {max_failures} without a newer checkpoint between"
    else:
        count, values = job.failures + 1, {"failures": job.failures + 1}
        attempt_count = f"failure {count} of {max_failures}"
    if count >= max_failures:
        fail_job(session, job.id, _explain_repeated_crash(error, count) if crash else error, token=token, **values)
        return
    # A fault of the machine or the store often lasts minutes: attempts at once would use up the budget within seconds.
    pause = min(first_pause * PAUSE_FACTOR ** (count - 1), LONGEST_PAUSE)
    when = f" in {pause:.0f} s" if pause >= 1 else ""
    message = f"Attempt {job.lease_token} failed ({error.message}); trying again{when}, {attempt_count}"
    reason = reason_of(error.code, values)
    _let_go(session, job.id, token, message=message, reason=reason, pause=pause, **values)


def time_out_job(session: Session, job_id: str, *, token: int) -> None:
    """End a job that has run for as long as it may; its checkpoints stay. Raises StaleLease."""
    job = repository.by_id(session, job_id)
    checkpoint = results_repository.latest_checkpoint(session, job_id)
    limit = job.timeout_seconds if job else None
    checkpoint_note = (
        f"its checkpoint at step {checkpoint.step} is kept" if checkpoint else "it had kept no checkpoint yet"
    )
    error = JobFailureReason(
        "timeout", f"The job ran for its timeout of {limit} seconds; {checkpoint_note}.", "timeout"
    )
    fail_job(session, job_id, error, token=token)


def fail_job(
    session: Session, job_id: str, error: JobFailureReason, *, token: int | None = None, **values: Any
) -> None:
    """End a job with an error that its owner can act on. Raises StaleLease."""
    # The move comes first: a worker with a stale token must leave neither an event nor a webhook.
    if not repository.move_job(
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
    if token is not None:
        count_end(session, reason_of(error.code, values))
    repository.add_event(session, job_id, f"The job failed: {error.message}", level="error")
    _notify_webhooks(session, job_id, "failed")


def cancel_job(session: Session, job_id: str) -> bool:
    """Cancel a job in any state but an ended one; its worker notices at its next look. False if it had ended."""
    before = repository.lock_job(session, job_id)
    running = before is not None and before.state == JobState.RUNNING
    was_moved = repository.move_job(
        session,
        job_id,
        JobState.CANCELLED,
        finished_at=db_now(),
        lease_expires_at=None,
        estimated_finish=None,
    )
    if was_moved:
        if running:
            count_end(session, "cancelled")
        repository.add_event(session, job_id, "The job was cancelled")
        _notify_webhooks(session, job_id, "cancelled")
    return was_moved


def complete_job(
    session: Session,
    job: JobRow,
    *,
    token: int,
    trained_tokens: int,
    kind: Kinds,
    blob_prefix: str,
    manifest_sha256: str,
    result_csv: PublishedFile,
    artifacts: Sequence[PublishedFile],
    train_seconds: float | None = None,
    ended_by: str | None = None,
    size: int = 0,
) -> str:
    """Publish a result in one transaction and return the model's name. Raises StaleLease: then nothing is published.

    `size` is the bytes of the model's own files.
    """
    lasting = retention.seconds_to_keep(job, "artifacts")
    expires_at = None if lasting is None else db_now() + lasting
    result = FileRow(
        id=ids.new_id(ids.FILE),
        project_id=job.project_id,
        filename=result_csv.filename,
        purpose=RESULT_PURPOSE,
        bytes=result_csv.bytes,
        sha256=result_csv.sha256,
        blob_key=result_csv.blob_key,
        expires_at=expires_at,
    )
    # The first write: with a stale token nothing may follow, and another attempt may own the result's name.
    if not repository.move_job(
        session,
        job.id,
        JobState.SUCCEEDED,
        token=token,
        finished_at=db_now(),
        lease_expires_at=None,
        estimated_finish=None,
        trained_tokens=trained_tokens,
        train_seconds=train_seconds,
        ended_by=ended_by,
        result_file=result.id,
    ):
        raise StaleLease(job.id)
    count_end(session, "succeeded")
    # The blobs were stored before: a model that can be listed can always be downloaded.
    session.add(result)
    session.add(
        FineTunedModelRow(
            id=job.model_name,
            project_id=job.project_id,
            base=job.base,
            kind=kind,
            job_id=job.id,
            blob_prefix=blob_prefix,
            manifest_sha256=manifest_sha256,
            expires_at=expires_at,
            bytes=size,
        )
    )
    session.add_all(JobArtifactRow(job_id=job.id, expires_at=expires_at, **vars(artifact)) for artifact in artifacts)
    repository.add_event(session, job.id, f"New fine-tuned model created: {job.model_name}")
    repository.add_event(session, job.id, "The job has successfully completed")
    _notify_webhooks(session, job.id, "succeeded")
    return job.model_name


def _count_crash(session: Session, job: JobRow) -> tuple[int, dict[str, int]]:
    """Return the number of this crash in its row, and the columns that keep it."""
    checkpoint = results_repository.latest_checkpoint(session, job.id)
    step = checkpoint.step if checkpoint else 0
    crashes = 1 if step > job.crash_step else job.crashes + 1
    return crashes, {"crashes": crashes, "crash_step": step}


def _explain_repeated_crash(error: JobFailureReason, count: int) -> JobFailureReason:
    if count == 1:
        return error
    message = f"{error.message.rstrip('.')}, {count} times in a row without the job getting any further."
    return JobFailureReason(error.code, message, error.param)


def _let_go(
    session: Session, job_id: str, token: int, *, message: str, reason: str, pause: float | None = None, **values: Any
) -> None:
    """An attempt is over and the job is not: running → paused if its owner requested a pause, else → queued.

    A job that has used up its timeout meanwhile → failed. With `pause`, a queued job waits so many seconds.
    """
    job = repository.lock_job(session, job_id)
    # Otherwise a job that is always preempted shortly before its timeout would never reach it.
    if repository.is_out_of_time(session, job_id):
        time_out_job(session, job_id, token=token)
        return
    pausing = job is not None and job.pause_requested
    target = JobState.PAUSED if pausing else JobState.QUEUED
    cleared_columns: dict[str, Any] = {"lease_expires_at": None, "estimated_finish": None, "pause_requested": False}
    if pause and not pausing:
        cleared_columns["retry_at"] = db_now() + pause
    if not repository.move_job(session, job_id, target, token=token, **cleared_columns, **values):
        raise StaleLease(job_id)
    count_end(session, "paused" if pausing else reason)
    if pausing:
        _add_paused_event(session, job_id)
        return
    repository.add_event(session, job_id, message, level="warn")
    # Due no earlier than `retry_at`: an earlier entry would be passed over, and the job wait for a refill.
    outbox.add_effect(session, outbox.Topic.ENQUEUE_JOB, delay=pause or 0.0, job_id=job_id)


def _pause_now(session: Session, job_id: str) -> bool:
    was_moved = repository.move_job(session, job_id, JobState.PAUSED, pause_requested=False)
    if was_moved:
        _add_paused_event(session, job_id)
    return was_moved


def _add_paused_event(session: Session, job_id: str) -> None:
    checkpoint = results_repository.latest_checkpoint(session, job_id)
    where = f" at the checkpoint of step {checkpoint.step}" if checkpoint else ""
    repository.add_event(session, job_id, f"The job is paused{where}; resume it to continue")


def _notify_webhooks(session: Session, job_id: str, outcome: str) -> None:
    after_commit(session, metrics.JOBS_ENDED.labels(outcome).inc)
    job = repository.by_id(session, job_id)
    outbox.add_effect(
        session,
        outbox.Topic.TELL_WEBHOOKS,
        lane=job and job.project_id,
        event_id=ids.new_id(ids.WEBHOOK_EVENT),
        type=f"fine_tuning.job.{outcome}",
        object_id=job_id,
    )
