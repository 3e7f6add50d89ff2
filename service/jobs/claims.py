"""Which job a worker takes: between projects in turns, within a project by priority."""

from __future__ import annotations

import json
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from service.jobs import lifecycle, turn_repository
from service.jobs.resources import Resources
from service.kit import project_turns
from service.kit.project_turns import TurnKind
from service.limits.values import UNLIMITED, QuotaLimits
from service.tables.jobs import JobRow
from service.workers.capacity import Capacity


def start_next(
    session: Session, *, capacity: Capacity, owner: str, lease_seconds: float, defaults: QuotaLimits = UNLIMITED
) -> JobRow | None:
    """Claim the queued job that is first in turn among those that this worker can run. None if there is none."""
    # Two workers that claim at once would both see the same project as next, and it would get two turns in a row.
    project_turns.wait_in_line(session, TurnKind.JOB)
    fit = _WorkerFit(capacity)
    for project_id in turn_repository.projects_in_turn(session):
        for row in turn_repository.ready_of_project(session, project_id):
            if not fit.covers_resources(row.resources):
                # Jobs behind this one may need less: a job for eight GPUs must not keep small ones from a small
                # worker.
                continue
            job = lifecycle.start_job(session, row.id, owner=owner, lease_seconds=lease_seconds, defaults=defaults)
            if job is not None:
                return job
            # `start_job` also returns None for a job that was cancelled in this moment: only then is the project's
            # next job worth a look.
            if session.scalar(select(JobRow.held_by).where(JobRow.id == row.id)) is not None:
                break  # a limit of the project holds this job, and would hold each of its others
    return None


class _WorkerFit:
    """Whether a worker has what jobs ask for, worked out once for jobs that ask for the same."""

    def __init__(self, capacity: Capacity) -> None:
        self._capacity = capacity
        self._known: dict[str, bool] = {}

    def covers_resources(self, resources: dict[str, Any] | None) -> bool:
        if resources is None:
            return True
        key = json.dumps(resources, sort_keys=True)
        if key not in self._known:
            self._known[key] = not Resources.model_validate(resources).describe_lack(self._capacity)
        return self._known[key]
