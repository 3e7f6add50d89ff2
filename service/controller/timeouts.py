"""Step: jobs that run beyond their timeout are ended unless their worker has done so."""

from __future__ import annotations

import logging

from service.context import Context
from service.jobs import lifecycle, repository
from service.jobs.errors import StaleLease
from service.kit.log import log_subject
from service.queue.base import JobIdQueue

_log = logging.getLogger(__name__)


def end_overdue(context: Context, _queue: JobIdQueue) -> int:
    """End running jobs that are past their timeout; return how many. Raises Unavailable.

    A job's worker does that itself and keeps a last checkpoint; it gets the time for it.
    """
    settings = context.settings
    with context.db.read() as session:
        overdue = repository.out_of_time(session, grace=settings.stop_seconds + settings.lease_seconds)
    for job in overdue:
        try:
            with context.db.write() as session:
                lifecycle.time_out_job(session, job.id, token=job.lease_token)
        except StaleLease:
            continue
        with log_subject(job.id, job.lease_token):
            _log.warning("the worker %s let %s run beyond its timeout: it was ended", job.lease_owner, job.id)
    return len(overdue)
