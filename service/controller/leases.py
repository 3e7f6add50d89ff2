"""Step: jobs whose worker fell silent go back to the queue, or fail when their budget is spent."""

from __future__ import annotations

import logging

from service.context import Context
from service.controller import queries
from service.jobs import lifecycle, repository
from service.jobs.lifecycle import JobError
from service.kit import metrics
from service.kit.log import about
from service.queue.base import JobQueue

_log = logging.getLogger(__name__)
_LOST = JobError("worker_lost", "the worker stopped answering")


def end_expired_leases(context: Context, _queue: JobQueue) -> int:
    """Take jobs from workers that did not renew in time; return how many. Raises Unavailable."""
    with context.db.read() as session:
        expired = [job.id for job in repository.with_expired_lease(session)]
    return sum(_end(context, job_id) for job_id in expired)


def _end(context: Context, job_id: str) -> bool:
    with context.db.write() as session:
        job = queries.lock_expired(session, job_id)
        if job is None:  # it was renewed, or has ended, since the list was read
            return False
        owner, attempt = job.lease_owner, job.lease_token
        lifecycle.retry_or_fail(
            session,
            job,
            token=attempt,
            error=_LOST,
            max_failures=context.settings.max_failures,
            crash=True,
            first_pause=context.settings.retry_seconds,
        )
    metrics.LEASES_EXPIRED.labels("job").inc()
    with about(job_id, attempt):
        _log.warning("the worker %s stopped answering: attempt %d of %s is over", owner, attempt, job_id)
    return True
