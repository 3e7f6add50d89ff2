"""SQL of a project's deletion."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Table, delete, or_, select, update
from sqlalchemy.orm import Session

from service.files.tables import File
from service.jobs.states import TERMINAL
from service.jobs.tables import Job
from service.keys.tables import Project
from service.kit.db import Base, db_now
from service.kit.outbox import OutboxRow, Topic
from service.uploads.tables import Upload
from service.webhooks.tables import WebhookAttempt, WebhookEndpoint, WebhookEvent

KEPT_TABLES = frozenset({"audit_log"})
"""What is told of a project outlives it."""


def unfinished_jobs(session: Session, project_id: str) -> Sequence[str]:
    """Return the ids of a project's jobs that have not ended."""
    query = select(Job.id).where(Job.project_id == project_id, Job.state.not_in(TERMINAL))
    return session.scalars(query.order_by(Job.seq)).all()


def some_jobs(session: Session, project_id: str, *, limit: int) -> Sequence[Job]:
    """Return some of a project's jobs."""
    return session.scalars(select(Job).where(Job.project_id == project_id).limit(limit)).all()


def some_files(session: Session, project_id: str, *, limit: int) -> Sequence[File]:
    """Return some of a project's files."""
    return session.scalars(select(File).where(File.project_id == project_id).limit(limit)).all()


def some_uploads(session: Session, project_id: str, *, limit: int) -> Sequence[Upload]:
    """Return some of a project's uploads."""
    return session.scalars(select(Upload).where(Upload.project_id == project_id).limit(limit)).all()


def drop_upload(session: Session, upload: Upload) -> None:
    """Delete an upload's row and its parts'."""
    session.execute(delete(Upload).where(Upload.seq == upload.seq))


def stop_deliveries(session: Session, project_id: str) -> None:
    """Drop what was still to be delivered to a project's endpoints."""
    lanes = select(WebhookEndpoint.id).where(WebhookEndpoint.project_id == project_id)
    pending = update(OutboxRow).where(OutboxRow.lane.in_(lanes), OutboxRow.done_at.is_(None))
    session.execute(
        pending.values(done_at=db_now(), error="the project was deleted"),
        execution_options={"synchronize_session": False},
    )


def forget_jobs(session: Session, job_ids: Sequence[str]) -> None:
    """Drop the outbox's rows that name these jobs."""
    named = or_(_payload("job_id").in_(job_ids), _payload("object_id").in_(job_ids))
    topics = (Topic.ENQUEUE_JOB, Topic.TELL_WEBHOOKS)
    _delete(session, delete(OutboxRow).where(OutboxRow.topic.in_(topics), named))


def drop_rest(session: Session, project_id: str) -> None:
    """Delete every row that belongs to a project, and the project's own; its jobs, files and uploads are gone."""
    events = select(WebhookEvent.id).where(WebhookEvent.project_id == project_id)
    endpoints = select(WebhookEndpoint.id).where(WebhookEndpoint.project_id == project_id)
    of_project = or_(OutboxRow.lane.in_(endpoints), OutboxRow.lane == project_id, _payload("event_id").in_(events))
    _delete(session, delete(OutboxRow).where(of_project))
    tried = or_(WebhookAttempt.endpoint_id.in_(endpoints), WebhookAttempt.event_id.in_(events))
    _delete(session, delete(WebhookAttempt).where(tried))
    for table in owned_tables():
        _delete(session, delete(table).where(table.c.project_id == project_id))
    _delete(session, delete(Project).where(Project.id == project_id))


def owned_tables() -> list[Table]:
    """Return the tables whose rows say which project they belong to, those that refer to others first."""
    tables = reversed(Base.metadata.sorted_tables)
    return [table for table in tables if "project_id" in table.c and table.name not in KEPT_TABLES]


def _payload(name: str) -> Any:
    return OutboxRow.payload[name].as_string()


def _delete(session: Session, statement: Any) -> None:
    session.execute(statement, execution_options={"synchronize_session": False})
