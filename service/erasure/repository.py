"""SQL of a project's deletion."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Table, delete, or_, select, update
from sqlalchemy.orm import Session

from service.jobs.states import TERMINAL
from service.kit.db import Base, db_now
from service.kit.outbox import OutboxRow, Topic
from service.tables.audit import AuditRow
from service.tables.files import FileRow
from service.tables.jobs import JobRow
from service.tables.keys import ProjectRow
from service.tables.uploads import UploadRow
from service.tables.webhooks import WebhookAttemptRow, WebhookEndpointRow, WebhookEventRow

KEPT_TABLES = frozenset({AuditRow.__tablename__})
"""What is told of a project outlives it."""


def unfinished_jobs(session: Session, project_id: str) -> Sequence[str]:
    """Return the ids of a project's jobs that have not ended."""
    query = select(JobRow.id).where(JobRow.project_id == project_id, JobRow.state.not_in(TERMINAL))
    return session.scalars(query.order_by(JobRow.seq)).all()


def some_jobs(session: Session, project_id: str, *, limit: int) -> Sequence[JobRow]:
    """Return some of a project's jobs."""
    return session.scalars(select(JobRow).where(JobRow.project_id == project_id).limit(limit)).all()


def some_files(session: Session, project_id: str, *, limit: int) -> Sequence[FileRow]:
    """Return some of a project's files."""
    return session.scalars(select(FileRow).where(FileRow.project_id == project_id).limit(limit)).all()


def some_uploads(session: Session, project_id: str, *, limit: int) -> Sequence[UploadRow]:
    """Return some of a project's uploads."""
    return session.scalars(select(UploadRow).where(UploadRow.project_id == project_id).limit(limit)).all()


def drop_upload(session: Session, upload: UploadRow) -> None:
    """Delete an upload's row and its parts'."""
    session.execute(delete(UploadRow).where(UploadRow.seq == upload.seq))


def stop_deliveries(session: Session, project_id: str) -> None:
    """Drop what was still to be delivered to a project's endpoints."""
    lanes = select(WebhookEndpointRow.id).where(WebhookEndpointRow.project_id == project_id)
    pending = update(OutboxRow).where(OutboxRow.lane.in_(lanes), OutboxRow.done_at.is_(None))
    session.execute(
        pending.values(done_at=db_now(), error="the project was deleted"),
        execution_options={"synchronize_session": False},
    )


def forget_jobs(session: Session, job_ids: Sequence[str]) -> None:
    """Drop the outbox's rows that name these jobs."""
    named = or_(_payload_field("job_id").in_(job_ids), _payload_field("object_id").in_(job_ids))
    topics = (Topic.ENQUEUE_JOB, Topic.TELL_WEBHOOKS)
    _execute_delete(session, delete(OutboxRow).where(OutboxRow.topic.in_(topics), named))


def drop_rest(session: Session, project_id: str) -> None:
    """Delete every row that belongs to a project, and the project's own; its jobs, files and uploads are gone."""
    events = select(WebhookEventRow.id).where(WebhookEventRow.project_id == project_id)
    endpoints = select(WebhookEndpointRow.id).where(WebhookEndpointRow.project_id == project_id)
    of_project = or_(
        OutboxRow.lane.in_(endpoints), OutboxRow.lane == project_id, _payload_field("event_id").in_(events)
    )
    _execute_delete(session, delete(OutboxRow).where(of_project))
    tried = or_(WebhookAttemptRow.endpoint_id.in_(endpoints), WebhookAttemptRow.event_id.in_(events))
    _execute_delete(session, delete(WebhookAttemptRow).where(tried))
    for table in owned_tables():
        _execute_delete(session, delete(table).where(table.c.project_id == project_id))
    _execute_delete(session, delete(ProjectRow).where(ProjectRow.id == project_id))


def owned_tables() -> list[Table]:
    """Return the tables whose rows say which project they belong to, those that refer to others first."""
    tables = reversed(Base.metadata.sorted_tables)
    return [table for table in tables if "project_id" in table.c and table.name not in KEPT_TABLES]


def _payload_field(name: str) -> Any:
    return OutboxRow.payload[name].as_string()


def _execute_delete(session: Session, statement: Any) -> None:
    session.execute(statement, execution_options={"synchronize_session": False})
