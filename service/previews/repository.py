"""SQL of previews."""

from __future__ import annotations

from typing import Any

from sqlalchemy import delete, func, select, update
from sqlalchemy.orm import Session, aliased

from service.kit.db import db_now
from service.previews.tables import Preview


def open_ones(session: Session, project_id: str, *, within: float) -> int:
    """Return how many previews a project has under way that began in the last `within` seconds."""
    query = select(func.count()).where(Preview.project_id == project_id, Preview.created_at >= db_now() - within)
    return session.scalar(query) or 0


def by_id(session: Session, preview_id: str) -> Preview | None:
    """Return a preview as it is now."""
    query = select(Preview).where(Preview.id == preview_id)
    return session.scalar(query.execution_options(populate_existing=True))


def next_waiting(session: Session, *, within: float, after_project: str) -> str | None:
    """Return the id of the next preview that no worker counts and that is still waited for; None if there is none.

    That is the oldest of a project with the fewest previews being counted, of another than `after_project` if there
    is one: a project's second preview waits until every other project has had its first.
    """
    other = aliased(Preview)
    counted = select(func.count()).where(
        other.project_id == Preview.project_id, other.taken_by.is_not(None), other.result.is_(None)
    )
    query = select(Preview.id).where(Preview.taken_by.is_(None), Preview.created_at >= db_now() - within)
    order = (counted.correlate(Preview).scalar_subquery(), Preview.project_id == after_project, Preview.seq)
    return session.scalar(query.order_by(*order).limit(1))


def take(session: Session, preview_id: str, *, worker_id: str) -> Preview | None:
    """Take a preview for a worker. None where another was faster, or nobody waits for it any more."""
    taken = session.execute(
        update(Preview)
        .where(Preview.id == preview_id, Preview.taken_by.is_(None))
        .values(taken_by=worker_id)
        .returning(Preview.id)
    )
    return None if taken.first() is None else by_id(session, preview_id)


def note(session: Session, preview_id: str, message: str) -> None:
    """Keep what the worker is busy with."""
    session.execute(update(Preview).where(Preview.id == preview_id).values(note=message))


def finish(session: Session, preview_id: str, result: dict[str, Any]) -> None:
    """Keep the answer; nothing happens where nobody waits for it any more."""
    session.execute(update(Preview).where(Preview.id == preview_id).values(result=result))


def remove(session: Session, preview_id: str) -> None:
    """Forget a preview."""
    session.execute(delete(Preview).where(Preview.id == preview_id))


def forget_old(session: Session, *, age: float) -> int:
    """Forget what was asked for more than `age` seconds ago; return how many."""
    gone = session.execute(delete(Preview).where(Preview.created_at < db_now() - age).returning(Preview.id))
    return len(gone.all())
