"""The rules of quotas. Whoever asks for room holds the project's lock until its transaction ends: two that ask at the
same time cannot both get the last of it.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Literal

from sqlalchemy.orm import Session

from service.limits import repository
from service.limits.errors import FREE_SOME, NoRoom, QuotaExceeded
from service.limits.schemas import LimitsObject, LimitsUpdate
from service.limits.values import QuotaLimits, QuotaUsage
from service.tables.jobs import JobState

_WAITING = (JobState.VALIDATING, JobState.QUEUED, JobState.PAUSED)
HoldReason = Literal["running_jobs", "training_minutes"]


@dataclass(frozen=True)
class LimitHold:
    """Why a job that is ready must not start now."""

    reason: HoldReason
    message: str


def limits_of(session: Session, defaults: QuotaLimits, project_id: str) -> QuotaLimits:
    """Return a project's limits: its own where it has some, else the defaults."""
    own = repository.project_overrides(session, project_id)
    return QuotaLimits(**{**asdict(defaults), **own}) if own else defaults


def usage_of(session: Session, project_id: str) -> QuotaUsage:
    """Return what a project uses."""
    begin, end = repository.current_month(session)
    return QuotaUsage(
        stored_bytes=repository.stored_bytes(session, project_id),
        running_jobs=repository.jobs_in(session, project_id, JobState.RUNNING),
        queued_jobs=repository.jobs_in(session, project_id, *_WAITING),
        training_minutes=round(repository.training_seconds(session, project_id, begin) / 60, 3),
        month_ends_at=end,
    )


def show_limits(session: Session, defaults: QuotaLimits, project_id: str) -> LimitsObject:
    """Return limits and use of a project."""
    own = frozenset(repository.project_overrides(session, project_id))
    limits = limits_of(session, defaults, project_id)
    return LimitsObject.from_limits(project_id, limits, own, usage_of(session, project_id))


def change_limits(session: Session, project_id: str, body: LimitsUpdate) -> None:
    """Set the limits of a project that a body gives."""
    given = body.requested_changes()
    repository.drop_overrides(session, project_id, [name for name, value in given.items() if value == "default"])
    own = {name: value for name, value in given.items() if not isinstance(value, str)}
    repository.set_overrides(session, project_id, own)


def remaining_bytes(session: Session, defaults: QuotaLimits, project_id: str) -> int | None:
    """Return how many bytes a project may still store; None if there is no limit. For a first look: not locked."""
    limit = limits_of(session, defaults, project_id).stored_bytes
    return None if limit is None else max(limit - repository.stored_bytes(session, project_id), 0)


def require_room(session: Session, defaults: QuotaLimits, project_id: str, *, what: str, size: int) -> None:
    """Raise QuotaExceeded if a project has no room for `size` bytes more, of which `what` is the sentence's subject.

    Call it before they are added, in the same transaction.
    """
    limit = limits_of(session, defaults, project_id).stored_bytes
    if limit is None or size <= 0:
        return
    repository.lock_project(session, project_id)
    free = max(limit - repository.stored_bytes(session, project_id), 0)
    if size > free:
        raise NoRoom(what, free)


def require_job(session: Session, defaults: QuotaLimits, project_id: str) -> None:
    """Raise QuotaExceeded if a project may not create another job now."""
    limits = limits_of(session, defaults, project_id)
    if limits == QuotaLimits():
        return
    repository.lock_project(session, project_id)
    _require_queue(session, limits, project_id)
    spent = _explain_spent_time(session, limits, project_id)
    if spent is not None:
        raise QuotaExceeded(f"{spent}: create the job then, or ask an administrator for more.")
    if limits.stored_bytes is not None and repository.stored_bytes(session, project_id) >= limits.stored_bytes:
        raise QuotaExceeded(
            f"This project stores the {limits.stored_bytes} bytes that it may, so there is no room for what a job "
            f"makes: {FREE_SOME}"
        )


def _require_queue(session: Session, limits: QuotaLimits, project_id: str) -> None:
    if limits.queued_jobs is None:
        return
    waiting = repository.jobs_in(session, project_id, *_WAITING)
    if waiting >= limits.queued_jobs:
        raise QuotaExceeded(
            f"{waiting} jobs of this project wait to run or are paused, and {limits.queued_jobs} is the most there may "
            "be: wait until one starts, cancel one, or ask an administrator for more."
        )


def hold_of(session: Session, defaults: QuotaLimits, project_id: str) -> LimitHold | None:
    """Return why no job of a project may start now, None if one may: then no other can start before the commit."""
    limits = limits_of(session, defaults, project_id)
    if limits.running_jobs is None and limits.training_minutes is None:
        return None
    repository.lock_project(session, project_id)
    return why_held(session, limits, project_id)


def why_held(session: Session, limits: QuotaLimits, project_id: str, *, waiting: int = 0) -> LimitHold | None:
    """Return why no job of a project may start now beside `waiting` others that will; None if one may."""
    spent = _explain_spent_time(session, limits, project_id)
    if spent is not None:
        return LimitHold("training_minutes", f"{spent}: the job starts then, or when an administrator allows more")
    if limits.running_jobs is None:
        return None
    if repository.jobs_in(session, project_id, JobState.RUNNING) + waiting < limits.running_jobs:
        return None
    if limits.running_jobs == 0:
        return LimitHold("running_jobs", "The project may run no jobs: the job starts when an administrator allows it")
    most = f"{limits.running_jobs} jobs" if limits.running_jobs > 1 else "one job"
    return LimitHold("running_jobs", f"The project may run {most} at a time: the job starts when another ends")


def _explain_spent_time(session: Session, limits: QuotaLimits, project_id: str) -> str | None:
    """Return a sentence without its end where the month's training time is used up."""
    if limits.training_minutes is None:
        return None
    begin, end = repository.current_month(session)
    if repository.training_seconds(session, project_id, begin) < limits.training_minutes * 60:
        return None
    day = datetime.fromtimestamp(end, UTC).strftime("%Y-%m-%d")
    return (
        f"The {limits.training_minutes} minutes of training that this project has in a month are used up; the next "
        f"month begins on {day} (UTC)"
    )
