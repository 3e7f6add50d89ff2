"""Step: jobs that none of the living workers can run say so, once."""

from __future__ import annotations

from service.context import Context
from service.jobs import repository
from service.jobs.queueing import describe_unfit_workers
from service.queue.base import JobIdQueue
from service.tables.jobs import JobRow
from service.workers import repository as workers


def report_unfit_jobs(context: Context, _queue: JobIdQueue) -> int:
    """Add an event to each queued job that asks for what no living worker has; return how many. Raises Unavailable."""
    with context.db.read() as session:
        living = workers.alive_workers(session, within=context.settings.lease_seconds)
        demanding = [job for job in repository.ready_jobs(session) if job.resources] if living else []
    unfit_jobs = [
        (job, lacking) for job in demanding if len(lacking := describe_unfit_workers(job, living)) == len(living)
    ]
    for job, lacking in unfit_jobs:
        _add_unfit_event(context, job, lacking)
    return len(unfit_jobs)


def _add_unfit_event(context: Context, job: JobRow, lacking: list[str]) -> None:
    message = f"No running worker can run this job: {'; '.join(lacking[:5])}. It waits for one that can"
    with context.db.write() as session:
        repository.add_event(session, job.id, message, level="warn", once_key=f"unfit:{job.lease_token}")
