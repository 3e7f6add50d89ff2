"""Step: deleted projects are erased."""

from __future__ import annotations

from service.context import Context
from service.erasure.service import erase
from service.kit import outbox
from service.queue.base import JobQueue


def erase_projects(context: Context, queue: JobQueue) -> int:
    """Erase the projects whose time has come; return how many. Raises Unavailable or QueueUnavailable."""
    with context.db.read() as session:
        rows = outbox.due(session, outbox.Topic.ERASE_PROJECT)
    for row in rows:
        erase(context, queue, row.payload["project_id"])
    return len(rows)
