"""Step: deleted projects are erased."""

from __future__ import annotations

from service.context import Context
from service.erasure.service import erase_project
from service.kit import outbox
from service.queue.base import JobIdQueue


def erase_projects(context: Context, queue: JobIdQueue) -> int:
    """Erase the projects that are due; return how many. Raises Unavailable or QueueUnavailable."""
    with context.db.read() as session:
        rows = outbox.fetch_due_effects(session, outbox.Topic.ERASE_PROJECT)
    for row in rows:
        erase_project(context, queue, row.payload["project_id"])
    return len(rows)
