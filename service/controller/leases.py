"""Step: jobs of workers that stopped responding return to the queue, or fail once their attempts are used up."""

from __future__ import annotations

import logging

from service.context import Context
from service.controller import queries
from service.jobs import lifecycle, repository
from service.jobs.lifecycle import JobFailureReason
from service.kit import metrics
from service.kit.log import log_subject
from service.queue.base import JobIdQueue

_log = logging.getLogger(__name__)
_LOST = JobFailureReason("worker_lost", "the worker stopped answering")


def end_expired_leases(context: Context, _queue: JobIdQueue) -> int:
    """Take jobs from workers that did not renew in time; return how many. Raises Unavailable."""
    with context.db.read() as session:
        job_ids = [job.id for job in repository.with_expired_lease(session)]
    return sum(_end_lease(context, job_id) for job_id in job_ids)


def _end_lease(context: Context, job_id: str) -> bool:
    # A short transaction for each job, so that no row stays locked while the others are looked at.
    with context.db.write() as session:
        job = queries.lock_expired(session, job_id)
        if job is None:  # it was renewed, or has ended, since the list was read
            return False
        owner, attempt = job.lease_owner, job.lease_token
        lifecycle.retry_or_fail_job(
            session,
            job,
            token=attempt,
            error=_LOST,
            max_failures=context.settings.max_failures,
            crash=True,
            first_pause=context.settings.retry_seconds,
        )
    metrics.LEASES_EXPIRED.labels("job").inc()
    with log_subject(job_id, attempt):
        _log.warning("the worker %s stopped answering: attempt %d of %s is over", owner, attempt, job_id)
    return True
