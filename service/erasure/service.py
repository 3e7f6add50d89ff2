"""The rules of a project's deletion: closed in one transaction, erased in small ones once nobody writes any more."""

from __future__ import annotations

import logging

from sqlalchemy.orm import Session

from service.audit.service import record_service
from service.context import Context
from service.erasure import repository
from service.files import service as files
from service.jobs import lifecycle
from service.jobs import repository as jobs
from service.keys import repository as keys
from service.keys.errors import ProjectNotFound
from service.kit import outbox
from service.kit.settings import Settings
from service.models import repository as models
from service.queue.base import JobIdQueue

_log = logging.getLogger(__name__)
_AT_ONCE = 20


def close_project(session: Session, settings: Settings, project_id: str) -> None:
    """Stop everything in a project and have it erased. Raises ProjectNotFound.

    Nothing more comes into it after this transaction: what is under way there is refused at its commit.
    """
    if keys.find_project(session, project_id) is None:
        raise ProjectNotFound(project_id)
    # Jobs are locked before their project everywhere. The second look finds what came before the project was closed.
    _cancel_jobs(session, project_id)
    if not keys.mark_deleted(session, project_id):
        raise ProjectNotFound(project_id)
    _cancel_jobs(session, project_id)
    repository.stop_deliveries(session, project_id)
    # A worker may notice only then that its job is gone, and until then store what it made.
    delay = settings.lease_seconds + settings.stop_seconds
    outbox.add_effect(session, outbox.Topic.ERASE_PROJECT, delay=delay, lane=project_id, project_id=project_id)


def erase_project(context: Context, queue: JobIdQueue, project_id: str) -> None:
    """Delete all that a closed project owns: rows, queue entries, and by the outbox its blobs. Safe to repeat.

    Raises Unavailable or QueueUnavailable.
    """
    while _erase_jobs(context, queue, project_id):
        pass
    while _erase_files(context, project_id) or _erase_uploads(context, project_id):
        pass
    with context.db.write() as session:
        repository.drop_rest(session, project_id)
        record_service(session, "project.erased", object_id=project_id, project_id=project_id)
    _log.info("the project %s was erased", project_id)


def _cancel_jobs(session: Session, project_id: str) -> None:
    for job_id in repository.unfinished_jobs(session, project_id):
        lifecycle.cancel_job(session, job_id)


def _erase_jobs(context: Context, queue: JobIdQueue, project_id: str) -> bool:
    with context.db.read() as session:
        some_jobs = repository.some_jobs(session, project_id, limit=_AT_ONCE)
    queue.remove_ids([job.id for job in some_jobs])
    with context.db.write() as session:
        for job in some_jobs:
            models.remove_of_job(session, job.id)
            jobs.delete_job_row(session, job)
            outbox.add_effect(session, outbox.Topic.DELETE_BLOBS, prefix=f"jobs/{job.id}")
        repository.forget_jobs(session, [job.id for job in some_jobs])
    return bool(some_jobs)


def _erase_files(context: Context, project_id: str) -> bool:
    with context.db.write() as session:
        found = repository.some_files(session, project_id, limit=_AT_ONCE)
        for file in found:
            files.remove_file(session, file)
    return bool(found)


def _erase_uploads(context: Context, project_id: str) -> bool:
    with context.db.write() as session:
        found = repository.some_uploads(session, project_id, limit=_AT_ONCE)
        for upload in found:
            repository.drop_upload(session, upload)
            outbox.add_effect(session, outbox.Topic.DELETE_BLOBS, prefix=f"uploads/{upload.id}")
    return bool(found)
