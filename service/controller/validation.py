"""Step: jobs in `validating` have their files checked against the row format of their method."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from service.context import Context
from service.jobs import lifecycle, repository
from service.jobs.datasets import BadFile, check_dataset
from service.jobs.errors import StaleLease
from service.jobs.lifecycle import JobError
from service.jobs.states import JobState
from service.jobs.tables import Job
from service.kit import tracing
from service.kit.errors import Unavailable
from service.kit.log import about
from service.queue.base import JobQueue
from service.storage.errors import StorageFull, StorageUnavailable

_log = logging.getLogger(__name__)
_BATCH = 20


def validate_jobs(context: Context, _queue: JobQueue) -> int:
    """Check the files of waiting jobs; each ends up queued or failed. Return how many were looked at.

    Raises Unavailable, StorageUnavailable: those jobs wait.
    """
    with context.db.read() as session:
        jobs = repository.in_state(session, JobState.VALIDATING, limit=_BATCH)
    for job in jobs:
        with about(job.id), tracing.span("validate files", {"burnish.job.id": job.id}, parent=job.traceparent):
            _decide(context, job, _check_job(context, job))
    return len(jobs)


def _check_job(context: Context, job: Job) -> list[BadFile]:
    try:
        named = {"training_file": job.training_file, "validation_file": job.validation_file}
        checked = [check_dataset(context, job, param, file_id) for param, file_id in named.items() if file_id]
        return [bad for bad in checked if bad is not None]
    except (Unavailable, StorageUnavailable, StorageFull):
        raise
    except Exception:  # noqa: BLE001 - told, and the job ends with it
        # One file that our own code stumbles over must not hold up every other job.
        _log.exception("checking the files of %s ended with an error that nobody foresaw", job.id)
        return [BadFile(JobError("server_error", "The service made an error while checking the files; see its log."))]


def _decide(context: Context, job: Job, bad_files: Sequence[BadFile]) -> None:
    try:
        with context.db.write() as session:
            if not bad_files:
                lifecycle.queue_up(session, job.id)
                return
            now = repository.lock(session, job.id)
            if now is None or now.state != JobState.VALIDATING:  # another controller was faster, or it was cancelled
                return
            for bad in bad_files:
                if bad.problems is not None:
                    message = f"{bad.problems['filename']} cannot be used as {bad.error.param}"
                    repository.add_event(session, job.id, message, level="error", data=bad.problems)
            lifecycle.fail(session, job.id, bad_files[0].error)
    except StaleLease:
        _log.info("%s was cancelled while its files were checked", job.id)
