"""Step: queued jobs that a limit of their project keeps from starting are held, and sent on once it allows."""

from __future__ import annotations

from collections.abc import Iterable

from service.context import Context
from service.jobs import lifecycle, repository, turn_repository
from service.limits import repository as limits_repository
from service.limits import service as limits
from service.limits.values import UNLIMITED, QuotaLimits
from service.queue.base import JobIdQueue
from service.tables.jobs import JobRow, JobState


def hold_jobs(context: Context, _queue: JobIdQueue) -> int:
    """Hold and release what has to be; return how many jobs changed. Raises Unavailable.

    A claim looks at the limits itself: this step informs the owners and sends the jobs to the queue again.
    """
    defaults = QuotaLimits.from_settings(context.settings)
    with context.db.read() as session:
        held_jobs = repository.fetch_held_jobs(session)
        any_limit = defaults != UNLIMITED or limits_repository.any_override(session)
        in_line = turn_repository.projects_in_line(session) if any_limit else ()
    changes = sum(_hold_ready_jobs(context, defaults, project_id) for project_id in in_line)
    return changes + sum(
        _release_held_jobs(context, defaults, project_jobs) for project_jobs in _by_project(held_jobs).values()
    )


def _by_project(jobs: Iterable[JobRow]) -> dict[str, list[JobRow]]:
    groups: dict[str, list[JobRow]] = {}
    for job in jobs:
        groups.setdefault(job.project_id, []).append(job)
    return groups


def _hold_ready_jobs(context: Context, defaults: QuotaLimits, project_id: str) -> int:
    with context.db.read() as session:
        own = limits.limits_of(session, defaults, project_id)
        why = limits.why_held(session, own, project_id)
        ready = repository.ready_of(session, project_id) if why is not None else ()
    changes = 0
    for job in ready:
        with context.db.write() as session:
            now = repository.lock_job(session, job.id)
            if why is not None and now is not None and now.state == JobState.QUEUED and now.held_by is None:
                lifecycle.hold_job(session, now, why)
                changes += 1
    return changes


def _release_held_jobs(context: Context, defaults: QuotaLimits, held_jobs: list[JobRow]) -> int:
    """Release jobs of one project, the oldest first: as many as may run."""
    for count, job in enumerate(held_jobs):
        with context.db.write() as session:
            now = repository.lock_job(session, job.id)
            if now is None or now.state != JobState.QUEUED or now.held_by is None:
                continue
            own = limits.limits_of(session, defaults, job.project_id)
            why = limits.why_held(session, own, job.project_id, waiting=repository.count_ready(session, job.project_id))
            if why is not None:
                lifecycle.hold_job(session, now, why)
                return count
            lifecycle.unhold_job(session, job.id)
    return len(held_jobs)
