"""SQL of limits and of what is used of them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Select, case, delete, func, select, update
from sqlalchemy.orm import Session

from service.kit.db import db_now
from service.tables.exports import ModelExportRow
from service.tables.files import FileRow
from service.tables.jobs import JobArtifactRow, JobCheckpointRow, JobRow, JobState
from service.tables.keys import ProjectRow
from service.tables.limits import ProjectLimitRow, TrainingSpanRow
from service.tables.models import FineTunedModelRow
from service.tables.uploads import UploadPartRow, UploadRow, UploadStatus


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
        _sum_rows(select(owned.bytes).join(JobRow, JobRow.id == owned.job_id), JobRow.project_id == project_id)
        for owned in (JobArtifactRow, JobCheckpointRow)
    ]
    parts = _sum_rows(select(UploadPartRow.bytes), UploadPartRow.upload_id == UploadRow.id).scalar_subquery()
    pending = select(case((parts > UploadRow.bytes, parts), else_=UploadRow.bytes).label("bytes"))
    totals = [
        *(
            _sum_rows(select(owned.bytes), owned.project_id == project_id)
            for owned in (FileRow, FineTunedModelRow, ModelExportRow)
        ),
        _sum_rows(pending, UploadRow.project_id == project_id, UploadRow.status == UploadStatus.PENDING),
        *of_jobs,
    ]
    return sum(int(session.scalar(total) or 0) for total in totals)


def _sum_rows(rows: Select[Any], *conditions: Any) -> Select[Any]:
    source = rows.where(*conditions)
    (of,) = source.selected_columns
    return source.with_only_columns(func.coalesce(func.sum(of), 0))


def jobs_in(session: Session, project_id: str, *states: JobState) -> int:
    """Return how many jobs of a project are in one of the states."""
    query = select(func.count()).select_from(JobRow)
    return session.scalar(query.where(JobRow.project_id == project_id, JobRow.state.in_(states))) or 0


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
