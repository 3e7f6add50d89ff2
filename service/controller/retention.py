"""Step: expired checkpoints and results, and checkpoints beyond those to keep, are deleted."""

from __future__ import annotations

import logging

from service.context import Context
from service.controller import queries
from service.jobs import retention
from service.queue.base import JobIdQueue

_log = logging.getLogger(__name__)
_BATCH = 100


class Retention:
    """Walks through what is due, a batch a pass: what is still needed holds up nothing behind it."""

    def __init__(self) -> None:
        self._checkpoints = self._results = self._jobs = 0

    def __call__(self, context: Context, _queue: JobIdQueue) -> int:
        """Look at the next ones; return how many were deleted. Raises Unavailable."""
        deletions = self._expire_checkpoints(context) + self._expire_results(context) + self._prune_checkpoints(context)
        if deletions:
            _log.info("%d checkpoints and results were deleted: they were kept for as long as was asked", deletions)
        return deletions

    def _expire_checkpoints(self, context: Context) -> int:
        with context.db.read() as session:
            checkpoints = queries.fetch_expired_checkpoints(session, after=self._checkpoints, limit=_BATCH)
        self._checkpoints = checkpoints[-1].seq if len(checkpoints) == _BATCH else 0
        deleted = 0
        for checkpoint in checkpoints:
            with context.db.write() as session:
                deleted += retention.drop_expired_checkpoint(session, checkpoint)
        return deleted

    def _expire_results(self, context: Context) -> int:
        with context.db.read() as session:
            job_ids = queries.fetch_expired_results(session, after=self._results, limit=_BATCH)
        self._results = job_ids[-1][0] if len(job_ids) == _BATCH else 0
        deletions = 0
        for _, job_id in job_ids:
            with context.db.write() as session:
                deletions += retention.drop_expired_results(session, job_id)
        return deletions

    def _prune_checkpoints(self, context: Context) -> int:
        with context.db.read() as session:
            job_ids = queries.with_more_checkpoints(session, after=self._jobs, limit=_BATCH)
        self._jobs = job_ids[-1][0] if len(job_ids) == _BATCH else 0
        deleted = 0
        for _, job_id in job_ids:
            with context.db.write() as session:
                deleted += retention.prune_checkpoints(session, job_id)
        return deleted
