"""How the jobs that a job needs are named to its project: another project's ids are not for it."""

from __future__ import annotations

from service.tables.jobs import JobRow


def shown_parent(job: JobRow, parent_id: str) -> str:
    """Return a parent's id, or, for another project's, the name that was shared with this one."""
    if parent_id not in (job.foreign_parents or "").split():
        return parent_id
    if parent_id == job.start_job:
        return job.model
    reward: str = job.method[job.method["type"]]["hyperparameters"]["reward"]["model"]
    return reward


def shown_waits(job: JobRow) -> list[str]:
    """Return what a job still waits for."""
    return [shown_parent(job, parent_id) for parent_id in (job.waits_for or "").split()]
