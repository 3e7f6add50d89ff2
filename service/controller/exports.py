"""Steps: exports of workers that stopped responding are made again; exports without time or model left are deleted."""

from __future__ import annotations

import logging

from service.context import Context
from service.exports import lifecycle, repository
from service.jobs.lifecycle import JobFailureReason
from service.kit import metrics
from service.kit.log import log_subject
from service.queue.base import JobIdQueue

_log = logging.getLogger(__name__)
_LOST = JobFailureReason("worker_lost", "The worker that made the export stopped answering.")


def end_expired_leases(context: Context, _queue: JobIdQueue) -> int:
    """Take exports from workers that did not renew in time; return how many. Raises Unavailable."""
    with context.db.read() as session:
        if not repository.with_expired_lease(session):
            return 0
    with context.db.write() as session:
        exports = repository.with_expired_lease(session)
        for export in exports:
            with log_subject(export.id, export.lease_token):
                _log.warning("the worker %s stopped answering: it made %s", export.lease_owner, export.id)
            lifecycle.retry_or_fail_export(session, export, context.settings, token=export.lease_token, error=_LOST)
    metrics.LEASES_EXPIRED.labels("export").inc(len(exports))
    return len(exports)


def remove_superfluous(context: Context, _queue: JobIdQueue) -> int:
    """Delete exports that expired or lost their model or checkpoint; return how many. Raises Unavailable."""
    with context.db.read() as session:
        if not repository.superfluous_exports(session, limit=1):
            return 0
    with context.db.write() as session:
        exports = repository.superfluous_exports(session)
        for export in exports:
            lifecycle.remove_export(session, export, context.settings)
    return len(exports)
