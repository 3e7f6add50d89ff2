"""Steps: queued jobs reach the queue, and reach it again if the queue has lost them."""

from __future__ import annotations

import logging

from service.context import Context
from service.controller import queries
from service.jobs import repository
from service.kit import outbox, tracing
from service.queue.base import JobIdQueue

_log = logging.getLogger(__name__)


def dispatch_jobs(context: Context, queue: JobIdQueue) -> int:
    """Push what the outbox asks for; return how many ids. Raises Unavailable or QueueUnavailable."""
    with context.db.read() as session:
        rows = outbox.fetch_due_effects(session, outbox.Topic.ENQUEUE_JOB)
        parents = queries.job_traceparents(session, [row.payload["job_id"] for row in rows]) if rows else {}
    for row in rows:
        job_id = row.payload["job_id"]
        with tracing.span("dispatch", {"burnish.job.id": job_id}, parent=parents.get(job_id), kind="producer"):
            # Pushed first and then marked: a crash in between pushes twice, which the claim absorbs. The other order
            # could lose the job.
            queue.push(job_id)
        with context.db.write() as session:
            outbox.mark_done(session, row.seq)
    return len(rows)


def refill_queue(context: Context, queue: JobIdQueue) -> int:
    """Push the queued jobs that do not wait in the queue, such as after it was emptied; return how many.

    A job that a worker is taking at this moment goes out twice: the second claim is refused by SQL.
    Raises Unavailable or QueueUnavailable.
    """
    with context.db.read() as session:
        ready_ids = [job.id for job in repository.ready_jobs(session)]
    # After the read of SQL: a job that became ready since is not in the list and is not pushed twice.
    waiting = queue.waiting_ids() if ready_ids else frozenset[str]()
    missing_ids = [job_id for job_id in ready_ids if job_id not in waiting]
    for job_id in missing_ids:
        queue.push(job_id)
    if missing_ids:
        _log.info("%d queued jobs were not in the queue and were sent again", len(missing_ids))
    return len(missing_ids)
