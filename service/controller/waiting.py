"""Step: jobs that start from other jobs are sent to the queue once those have succeeded, or end as those did."""

from __future__ import annotations

import logging

from sqlalchemy.orm import Session

from service.context import Context
from service.jobs import lifecycle, repository
from service.jobs.errors import StaleLease
from service.jobs.lifecycle import JobFailureReason
from service.jobs.parents import shown_parent
from service.kit.log import log_subject
from service.queue.base import JobIdQueue
from service.tables.jobs import JobRow, JobState

_log = logging.getLogger(__name__)
_NO_RESULT = (JobState.FAILED, JobState.CANCELLED)


def release_waiting(context: Context, _queue: JobIdQueue) -> int:
    """Look at every waiting job; return how many wait no longer. Raises Unavailable."""
    with context.db.read() as session:
        jobs = repository.waiting_jobs(session)
    return sum(_look_at(context, job) for job in jobs)


def _look_at(context: Context, job: JobRow) -> bool:
    parent_ids = (job.waits_for or "").split()
    with context.db.read() as session:
        states = repository.states_of_jobs(session, parent_ids)
    pending_parents = [parent for parent in parent_ids if states.get(parent) != JobState.SUCCEEDED]
    ended_parent = next(
        (parent for parent in pending_parents if states.get(parent, JobState.FAILED) in _NO_RESULT), None
    )
    if pending_parents == parent_ids and ended_parent is None:
        return False
    try:
        with context.db.write() as session:
            return _update_waiting_job(session, job, pending_parents, ended_parent)
    except StaleLease:
        with log_subject(job.id):
            _log.info("%s ended while it was looked at", job.id)
        return False


def _update_waiting_job(session: Session, job: JobRow, pending_parents: list[str], ended_parent: str | None) -> bool:
    if ended_parent is not None:
        lifecycle.fail_job(session, job.id, _parent_failed(session, job, ended_parent))
        return True
    if pending_parents:
        repository.wait_for(session, job.id, pending_parents)
        return False
    return lifecycle.release_job(session, job.id)


def _parent_failed(session: Session, job: JobRow, parent_id: str) -> JobFailureReason:
    parent = repository.by_id(session, parent_id)
    shown_name = shown_parent(job, parent_id)
    foreign = shown_name != parent_id
    job_name = f"The job of {shown_name}" if foreign else f"The job {parent_id}"
    if parent is not None and parent.state == JobState.CANCELLED:
        outcome = "was cancelled"
    else:
        reason: str = (parent.error or {}).get("message", "") if parent and not foreign else ""
        outcome = f"failed ({reason})" if reason else "failed"
    is_reward_model = parent_id == job.reward_job and parent_id != job.start_job
    param = f"method.{job.method['type']}.hyperparameters.reward.model" if is_reward_model else "model"
    role = "which trains the reward model of this job" if is_reward_model else "which this job starts from"
    return JobFailureReason("parent_failed", f"{job_name}, {role}, {outcome}, so this job cannot run.", param)
