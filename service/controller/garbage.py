"""Steps: blobs that nothing refers to any more are deleted."""

from __future__ import annotations

import logging
from datetime import timedelta

from service.context import Context
from service.controller import queries
from service.controller.queries import Cursor
from service.files import service as files
from service.keys import repository as keys
from service.keys.service import KEPT_SECONDS
from service.kit import outbox
from service.previews import repository as previews
from service.queue.base import JobIdQueue
from service.storage.errors import InvalidKey
from service.tables.jobs import JobRow
from service.uploads import service as uploads
from service.webhooks import repository as webhooks
from service.workers import repository as workers

_log = logging.getLogger(__name__)
_ABANDONED_AFTER = timedelta(days=1)
_NOTICES_KEPT = timedelta(days=30)
_PREVIEWS_KEPT = timedelta(hours=1)
_JOBS_A_PASS = 20


def delete_blobs(context: Context, _queue: JobIdQueue) -> int:
    """Delete what the outbox asks for; return how many rows. Raises Unavailable or StorageUnavailable."""
    with context.db.read() as session:
        rows = outbox.fetch_due_effects(session, outbox.Topic.DELETE_BLOBS)
    for row in rows:
        error = None
        try:
            if "prefix" in row.payload:
                # Before the row is removed: a crash in between repeats the deletion, which is harmless, while the
                # other order would leak blobs.
                context.storage.delete_prefix(row.payload["prefix"])
            else:
                context.storage.delete(row.payload["key"])
        # It can never succeed, and would stay at the head of the outbox.
        except InvalidKey as invalid_key:
            error = str(invalid_key)
            _log.error("a deletion is given up: %s", error)
        with context.db.write() as session:
            if error is None:
                outbox.remove_effect(session, row.seq)
            else:
                outbox.mark_done(session, row.seq, error=error)
    return len(rows)


def delete_expired_files(context: Context, _queue: JobIdQueue) -> int:
    """Delete the expired files; return how many. Raises Unavailable."""
    with context.db.write() as session:
        return files.delete_expired(session)


def end_expired_uploads(context: Context, _queue: JobIdQueue) -> int:
    """End the expired uploads; return how many. Raises Unavailable."""
    with context.db.write() as session:
        return uploads.end_expired(session)


def remove_abandoned(context: Context, _queue: JobIdQueue) -> int:
    """Drop uploads that a day ago were begun and never ended, and what SQL keeps for some time.

    Raises Unavailable or StorageUnavailable.
    """
    with context.db.write() as session:
        keys.forget_answers(session, age=KEPT_SECONDS)
        queries.forget_done(session, age=_NOTICES_KEPT.total_seconds())
        webhooks.forget_events(session, age=_NOTICES_KEPT.total_seconds())
        previews.forget_old(session, age=_PREVIEWS_KEPT.total_seconds())
        workers.delete_stopped_workers(session, age=_PREVIEWS_KEPT.total_seconds())
    return context.storage.remove_abandoned(_ABANDONED_AFTER)


class AttemptSweeper:
    """Deletes what the attempts of ended jobs left, except what was published and the recorded checkpoints.

    It walks through the ended jobs in the order of their ends, some a pass, and begins anew with the process.
    A job is visited once its last worker has noticed the end and stopped writing.
    """

    def __init__(self) -> None:
        self._cursor: Cursor = (0.0, 0)

    def __call__(self, context: Context, _queue: JobIdQueue) -> int:
        """Visit the next ended jobs; return how many blobs were deleted. Raises Unavailable or StorageUnavailable."""
        settings = context.settings
        # Until then a worker that has not noticed the end may still be writing.
        age = settings.lease_seconds + settings.stop_seconds
        with context.db.read() as session:
            jobs = queries.fetch_jobs_ended_after(session, self._cursor, age=age, limit=_JOBS_A_PASS)
        deleted_blobs = 0
        for job in jobs:
            deleted_blobs += _sweep_job(context, job)
            self._cursor = (job.finished_at or 0.0, job.seq)
        return deleted_blobs


def _sweep_job(context: Context, job: JobRow) -> int:
    with context.db.read() as session:
        keys, prefixes = queries.fetch_published_blobs(session, job)
    published_attempts = _find_published_attempts(job, keys)
    folders = tuple(f"{prefix.rstrip('/')}/" for prefix in prefixes)
    deleted_blobs = 0
    # Listed before anything is deleted: a listing need not survive changes to what it lists.
    for blob in list(context.storage.list(f"jobs/{job.id}")):
        if (
            blob.key.split("/")[2] in (*published_attempts, "exports")
            or blob.key in keys
            or blob.key.startswith(folders)
        ):
            continue
        context.storage.delete(blob.key)
        deleted_blobs += 1
    if deleted_blobs:
        _log.info("%d blobs that attempts of %s had left were deleted", deleted_blobs, job.id)
    return deleted_blobs


def _find_published_attempts(job: JobRow, keys: frozenset[str]) -> frozenset[str]:
    """Return the names of the folders `attempt-N` that hold published blobs: they stay whole."""
    home = f"jobs/{job.id}/"
    return frozenset(key.split("/")[2] for key in keys if key.startswith(home) and key.count("/") > 2)
