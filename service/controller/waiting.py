"""Step: jobs that go on from other jobs are sent to the queue once those have succeeded, or end as those did."""

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
    needed = (job.waits_for or "").split()
    with context.db.read() as session:
        states = repository.states_of_jobs(session, needed)
    left = [parent for parent in needed if states.get(parent) != JobState.SUCCEEDED]
    lost = next((parent for parent in left if states.get(parent, JobState.FAILED) in _NO_RESULT), None)
    if left == needed and lost is None:
        return False
    try:
        with context.db.write() as session:
            return _update_waiting_job(session, job, left, lost)
    except StaleLease:
        with log_subject(job.id):
            _log.info("%s ended while it was looked at", job.id)
        return False


def _update_waiting_job(session: Session, job: JobRow, left: list[str], lost: str | None) -> bool:
    if lost is not None:
        lifecycle.fail_job(session, job.id, _parent_failed(session, job, lost))
        return True
    if left:
        repository.wait_for(session, job.id, left)
        return False
    return lifecycle.release_job(session, job.id)


def _parent_failed(session: Session, job: JobRow, parent_id: str) -> JobFailureReason:
    parent = repository.by_id(session, parent_id)
    shown = shown_parent(job, parent_id)
    foreign = shown != parent_id
    named = f"The job of {shown}" if foreign else f"The job {parent_id}"
    if parent is not None and parent.state == JobState.CANCELLED:
        what = "was cancelled"
    else:
        reason: str = (parent.error or {}).get("message", "") if parent and not foreign else ""
        what = f"failed ({reason})" if reason else "failed"
    asked = parent_id == job.reward_job and parent_id != job.start_job
    param = f"method.{job.method['type']}.hyperparameters.reward.model" if asked else "model"
    role = "whose reward model this one asks" if asked else "that this one goes on from"
    return JobFailureReason("parent_failed", f"{named}, {role}, {what}, so this one cannot run.", param)
