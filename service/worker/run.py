"""One job, from its claim to its end: the one function that the queue may ask for."""

from __future__ import annotations

import errno
import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

from sqlalchemy.orm import Session

from service.context import Context
from service.jobs import claims, lifecycle
from service.jobs.errors import StaleLease
from service.jobs.lifecycle import JobFailureReason
from service.limits.values import QuotaLimits
from service.staging.bases import PREPARE_COMMAND, prepared_base
from service.staging.errors import (
    AttemptCrashed,
    AttemptFailed,
    JobFailedForGood,
    JobPaused,
    JobTimedOut,
    LeaseLost,
    WorkerStopping,
)
from service.tables.jobs import JobRow
from service.worker import observed
from service.worker.lease import Lease
from service.worker.messages import without_nul
from service.worker.publish import publish_result
from service.worker.reporting import report_metrics
from service.worker.stage import stage_job, uses_gpu, work_folder
from service.worker.supervise import TRAINER_COMMAND, supervise_trainer
from service.workers.capacity import Capacity

log = logging.getLogger(__name__)

FULL = (errno.ENOSPC, errno.EDQUOT)


@dataclass(frozen=True)
class WorkerRuntime:
    """What a worker process has at hand for every job. `stop` is set when it must end."""

    context: Context
    owner: str
    stop: threading.Event
    trainer_command: Sequence[str] = TRAINER_COMMAND
    prepare_command: Sequence[str] = PREPARE_COMMAND
    capacity: Capacity = field(default_factory=Capacity)


def run_job(runtime: WorkerRuntime, ticket: str) -> None:
    """Claim a job and bring this attempt at it to an end. Returns at once if there is none to be claimed.

    The id that the queue brought says that there is work, no more: SQL says which job's turn it is.
    Raises Unavailable if the database does not answer to the claim.
    """
    context, settings = runtime.context, runtime.context.settings
    # Before the claim, see `Lease`.
    since = time.monotonic()
    with context.db.write() as session:
        # Not the id from the queue: entries arrive in the order of creation, while SQL takes projects in turns and
        # respects priorities.
        job = claims.start_next(
            session,
            capacity=runtime.capacity,
            owner=runtime.owner,
            lease_seconds=settings.lease_seconds,
            defaults=QuotaLimits.from_settings(settings),
        )
    if job is None:
        log.info("Called for %s: no queued job is left that this worker can and may run", ticket)
        return
    job_id = job.id
    observed.record_claim(job, since=since)
    log.info("%s claimed with token %d", job_id, job.lease_token)
    lease = Lease(
        context.db,
        settings,
        job_id=job_id,
        token=job.lease_token,
        stop=runtime.stop,
        since=since,
        time_left=None if job.timeout_seconds is None else job.timeout_seconds - job.running_seconds,
    )
    with report_metrics(context, job), lease:
        try:
            _run_attempt(runtime, job, lease)
            log.info("%s succeeded", job_id)
        # Another attempt owns the job now, or it was cancelled: its state is not ours to write.
        except (LeaseLost, StaleLease) as error:
            log.warning("Stopped: %s", error)
        except Exception as error:  # noqa: BLE001 - every end of an attempt becomes the job's next state
            _end_attempt(runtime, job, lease, error)


def _run_attempt(runtime: WorkerRuntime, job: JobRow, lease: Lease) -> None:
    context = runtime.context
    with observed.observe_attempt(job), work_folder(context.settings.work, job.id, lease.token) as folder:
        bases = partial(prepared_base, context, job.project_id, lease, workdir=folder, command=runtime.prepare_command)
        stage_job(context, job, lease, folder=folder, bases=bases, since=lease.since)
        # Staging may have taken long; a pause or a timeout from that time should not start a trainer.
        lease.check_all()
        supervise_trainer(
            context.storage,
            context.settings,
            lease,
            runtime.stop,
            folder=folder,
            gpu=uses_gpu(job),
            gpus=runtime.capacity.gpus if uses_gpu(job) else 0,
            command=runtime.trainer_command,
        )
        publish_result(context, job, lease, folder=folder)


def _end_attempt(runtime: WorkerRuntime, job: JobRow, lease: Lease, error: Exception) -> None:
    change = _change_of(runtime, job, lease.token, error)

    def write_end() -> None:
        with runtime.context.db.write() as session:
            change(session)

    try:
        # The end of an attempt is written even after a long outage, as long as the lease holds; after that the
        # controller ends it.
        lease.retry_while_database_is_down(write_end)
    except (LeaseLost, StaleLease) as lost_lease:
        log.warning("Stopped: %s", lost_lease)


def _change_of(runtime: WorkerRuntime, job: JobRow, token: int, error: Exception) -> Callable[[Session], None]:
    """Return the change of state that an attempt's end asks for."""
    match error:
        case WorkerStopping():
            log.info("%s returns to the queue: this worker stops", job.id)
            return lambda session: lifecycle.requeue_job(session, job.id, token, reason="its worker is stopping")
        case JobPaused():
            log.info("%s is paused by its owner", job.id)
            return lambda session: lifecycle.complete_pause(session, job.id, token)
        case JobTimedOut():
            log.info("%s has used up its timeout", job.id)
            return lambda session: lifecycle.time_out_job(session, job.id, token=token)
        case JobFailedForGood():
            log.info("%s failed: %s", job.id, error)
            return lambda session: lifecycle.fail_job(session, job.id, _clean_error(error.error), token=token)
        case AttemptFailed():
            log.error("%s: this attempt failed: %s", job.id, error)
            reason = error.error
        # The machine's fault and not the job's: another attempt, perhaps on another machine, may succeed.
        case OSError() if error.errno in FULL:
            log.error("%s: the disk is full: %s", job.id, error)
            reason = JobFailureReason("disk_full", "The disk of the worker is full: free some space there.")
        case _:
            log.error("%s: unexpected error in the worker", job.id, exc_info=error)
            reason = JobFailureReason(
                "worker_error",
                f"The worker failed unexpectedly ({type(error).__name__}); the details are in its log.",
            )
    return lambda session: lifecycle.retry_or_fail_job(
        session,
        job,
        token=token,
        error=_clean_error(reason),
        max_failures=runtime.context.settings.max_failures,
        crash=isinstance(error, AttemptCrashed),
        first_pause=runtime.context.settings.retry_seconds,
    )


def _clean_error(error: JobFailureReason) -> JobFailureReason:
    return JobFailureReason(code=error.code, message=without_nul(error.message), param=error.param)
