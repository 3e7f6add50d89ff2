"""SQL of limits and of what is used of them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Select, case, column, delete, func, select, table, update
from sqlalchemy.orm import Session

from service.keys.tables import ProjectRow
from service.kit.db import db_now
from service.limits.tables import ProjectLimitRow, TrainingSpanRow

# The tables by their names alone: the modules that own them ask this one for room, so it cannot import them.
_FILES = table("files", column("project_id"), column("bytes"))
_UPLOADS = table("uploads", column("id"), column("project_id"), column("status"), column("bytes"))
_PARTS = table("upload_parts", column("upload_id"), column("bytes"))
_JOBS = table("jobs", column("id"), column("project_id"), column("state"))
_OF_JOBS = tuple(table(name, column("job_id"), column("bytes")) for name in ("job_artifacts", "job_checkpoints"))
_MODELS = table("fine_tuned_models", column("project_id"), column("bytes"))
_EXPORTS = table("model_exports", column("project_id"), column("bytes"))


def lock_project(session: Session, project_id: str) -> None:
    """Keep others from using more of a project's quotas until the transaction ends.

    Whoever locks a job, an upload or the like too does that first.
    """
    # Not FOR UPDATE: that would also wait for every row that is being added with a reference to the project.
    session.execute(select(ProjectRow.seq).where(ProjectRow.id == project_id).with_for_update(key_share=True))


def project_overrides(session: Session, project_id: str) -> dict[str, int | None]:
    """Return the limits of a project's own."""
    rows = session.execute(
        select(ProjectLimitRow.name, ProjectLimitRow.value).where(ProjectLimitRow.project_id == project_id)
    )
    return {row.name: row.value for row in rows}


def any_override(session: Session) -> bool:
    """Tell whether any project has a limit of its own."""
    return session.scalar(select(ProjectLimitRow.seq).limit(1)) is not None


def set_overrides(session: Session, project_id: str, values: Mapping[str, int | None]) -> None:
    """Set limits of a project's own; others stay."""
    if values:
        drop_overrides(session, project_id, list(values))
        session.add_all(
            ProjectLimitRow(project_id=project_id, name=name, value=value) for name, value in values.items()
        )
        session.flush()


def drop_overrides(session: Session, project_id: str, names: list[str]) -> None:
    """Return to the defaults."""
    session.execute(
        delete(ProjectLimitRow).where(ProjectLimitRow.project_id == project_id, ProjectLimitRow.name.in_(names))
    )


def stored_bytes(session: Session, project_id: str) -> int:
    """Return how much a project stores: files, models, exports, results, checkpoints, and the uploads that are to come.

    A pending upload counts with the bytes that were announced, or with those of its parts where they are more.
    """
    of_jobs = [
        _sum_rows(select(source.c.bytes).join(_JOBS, _JOBS.c.id == source.c.job_id), _JOBS.c.project_id == project_id)
        for source in _OF_JOBS
    ]
    parts = _sum_rows(select(_PARTS.c.bytes), _PARTS.c.upload_id == _UPLOADS.c.id).scalar_subquery()
    pending = select(case((parts > _UPLOADS.c.bytes, parts), else_=_UPLOADS.c.bytes).label("bytes"))
    totals = [
        _sum_rows(select(_FILES.c.bytes), _FILES.c.project_id == project_id),
        _sum_rows(select(_MODELS.c.bytes), _MODELS.c.project_id == project_id),
        _sum_rows(select(_EXPORTS.c.bytes), _EXPORTS.c.project_id == project_id),
        _sum_rows(pending, _UPLOADS.c.project_id == project_id, _UPLOADS.c.status == "pending"),
        *of_jobs,
    ]
    return sum(int(session.scalar(total) or 0) for total in totals)


def _sum_rows(rows: Select[Any], *conditions: Any) -> Select[Any]:
    source = rows.where(*conditions)
    (of,) = source.selected_columns
    return source.with_only_columns(func.coalesce(func.sum(of), 0))


def jobs_in(session: Session, project_id: str, *states: str) -> int:
    """Return how many jobs of a project are in one of the states."""
    query = select(func.count()).select_from(_JOBS)
    return session.scalar(query.where(_JOBS.c.project_id == project_id, _JOBS.c.state.in_(states))) or 0


def current_month(session: Session) -> tuple[float, float]:
    """Return when this calendar month (UTC) began and when the next one does, in unix seconds."""
    now = datetime.fromtimestamp(session.scalars(select(db_now())).one(), UTC)
    begin = datetime(now.year, now.month, 1, tzinfo=UTC)
    following = datetime(now.year + now.month // 12, now.month % 12 + 1, 1, tzinfo=UTC)
    return begin.timestamp(), following.timestamp()


def training_seconds(session: Session, project_id: str, since: float) -> float:
    """Return for how long attempts at a project's jobs have run from `since` until now."""
    begin = case((TrainingSpanRow.started_at < since, since), else_=TrainingSpanRow.started_at)
    spent = func.sum(func.coalesce(TrainingSpanRow.ended_at, db_now()) - begin)
    of_project = TrainingSpanRow.project_id == project_id
    ended = session.scalar(select(spent).where(of_project, TrainingSpanRow.ended_at > since))
    running = session.scalar(select(spent).where(of_project, TrainingSpanRow.ended_at.is_(None)))
    return max(float(ended or 0) + float(running or 0), 0.0)


def begin_span(session: Session, project_id: str, job_id: str) -> None:
    """Begin to count an attempt's time."""
    session.add(TrainingSpanRow(project_id=project_id, job_id=job_id))


def end_span(session: Session, job_id: str, *, at: float) -> None:
    """End the attempt that runs, if one does."""
    session.execute(
        update(TrainingSpanRow)
        .where(TrainingSpanRow.job_id == job_id, TrainingSpanRow.ended_at.is_(None))
        .values(ended_at=at)
    )
