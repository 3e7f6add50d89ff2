"""Why jobs do not run yet: which project is next, and which of the living workers could run them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from sqlalchemy import select
from sqlalchemy.orm import Session

from service.jobs import turn_repository
from service.jobs.parents import shown_waits
from service.jobs.resources import Resources
from service.jobs.schemas import JobQueueObject
from service.jobs.turn_repository import ProjectStanding
from service.kit.db import db_now
from service.kit.settings import Settings
from service.tables.jobs import JobRow, JobState
from service.tables.workers import WorkerRow
from service.workers import repository as workers

COUNTED = 1000
"""Up to which place positions are shown."""


@dataclass(frozen=True)
class QueueSnapshot:
    """The queue at one moment, as far as a project's jobs need it: how projects stand, and the workers that live."""

    own: ProjectStanding | None
    others: Sequence[ProjectStanding]
    first: Sequence[tuple[str, int]]
    """Id and priority of the project's first jobs, in turn."""
    workers: Sequence[WorkerRow]
    now_at: float = 0.0

    @classmethod
    def read_snapshot(cls, session: Session, settings: Settings, project_id: str) -> QueueSnapshot:
        """Read it for the jobs of a project."""
        standings = {
            project_standing.project_id: project_standing
            for project_standing in turn_repository.project_standings(session)
        }
        return cls(
            own=standings.pop(project_id, None) or turn_repository.standing_of_idle(session, project_id),
            others=list(standings.values()),
            first=turn_repository.first_of_project(session, project_id, limit=COUNTED),
            workers=workers.alive_workers(session, within=settings.lease_seconds),
            now_at=session.scalar(select(db_now())) or 0.0,
        )

    @cached_property
    def _ranks(self) -> dict[str, int]:
        return {job_id: rank for rank, (job_id, _) in enumerate(self.first)}

    def explain_job(self, job: JobRow) -> JobQueueObject | None:
        """Return why a job does not run yet; None if it runs or has ended."""
        match job.state:
            case JobState.VALIDATING:
                return JobQueueObject(position=None, reason="validating", message="Its files are being checked.")
            case JobState.PAUSED:
                return JobQueueObject(position=None, reason="paused", message="It is paused; resume it to continue.")
            case JobState.QUEUED if job.waits_for:
                message = f"It waits for {' and '.join(shown_waits(job))} to succeed."
                return JobQueueObject(position=None, reason="waits_for_jobs", message=message)
            case JobState.QUEUED if job.held_by:
                message = f"It waits for a limit of its project, {job.held_by}; GET /v1/limits shows what is used."
                return JobQueueObject(position=None, reason="project_limit", message=message)
            case JobState.QUEUED if job.retry_at and job.retry_at > self.now_at:
                message = f"Its last attempt failed; the next one may start in {job.retry_at - self.now_at:.0f} s."
                return JobQueueObject(position=None, reason="retrying", message=message)
            case JobState.QUEUED:
                return self._explain_wait(job, self._overall_position(self._ranks.get(job.id)))
            case _:
                return None

    def explain_new(self, job: JobRow) -> JobQueueObject:
        """Return where a job would stand that was queued now."""
        rank = sum(priority >= job.priority for _, priority in self.first)
        return self._explain_wait(job, self._overall_position(rank if rank < COUNTED else None, new=True))

    def _overall_position(self, rank: int | None, *, new: bool = False) -> int | None:
        """Return the place of the project's job number `rank` among all; None if it is too far back to be shown."""
        if rank is None or self.own is None:
            return None
        own = self.own._replace(head=math.inf) if new and not rank else self.own
        order = own.order_of(rank)
        position = 1 + rank + sum(project_queue.count_before(order) for project_queue in self.others)
        return position if position <= COUNTED else None

    def _explain_wait(self, job: JobRow, position: int | None) -> JobQueueObject:
        if not self.workers:
            message = "No worker is running: start one with `burnish-server worker`."
            return JobQueueObject(position=position, reason="no_worker", message=message)
        lacking = describe_unfit_workers(job, self.workers)
        fitting = len(self.workers) - len(lacking)
        if not fitting:
            message = f"No running worker can run it: {'; '.join(lacking[:5])}."
            return JobQueueObject(position=position, reason="no_fitting_worker", message=message)
        ahead = f"more than {COUNTED}" if position is None else str(position - 1)
        message = f"{ahead} queued job(s) are ahead of it; {fitting} running worker(s) can run it."
        return JobQueueObject(position=position, reason="workers_busy", message=message)


def explain_jobs(session: Session, settings: Settings, jobs: Sequence[JobRow]) -> dict[str, JobQueueObject | None]:
    """Return why each of some jobs does not run yet, by id, with the queue read only if that is needed."""
    project_ids = {job.project_id for job in jobs if job.state == JobState.QUEUED and not job.waits_for}
    queues = {project_id: QueueSnapshot.read_snapshot(session, settings, project_id) for project_id in project_ids}
    nobody = QueueSnapshot(None, (), (), ())
    return {job.id: queues.get(job.project_id, nobody).explain_job(job) for job in jobs}


def describe_unfit_workers(job: JobRow, living: Sequence[WorkerRow]) -> list[str]:
    """Return a part of a sentence for each worker that lacks what a job needs."""
    needs = Resources.model_validate(job.resources or {})
    worker_lacks = ((worker.name, needs.describe_lack(workers.capacity_of(worker))) for worker in living)
    return [f"{name} has {lacking}" for name, lacking in worker_lacks if lacking]
