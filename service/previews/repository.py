"""SQL of previews."""

from __future__ import annotations

from typing import Any

from sqlalchemy import ColumnElement, delete, func, select, update
from sqlalchemy.orm import Session, aliased

from service.kit import project_turns
from service.kit.db import db_now
from service.kit.project_turns import TurnKind, last_turn
from service.previews.tables import Preview


def open_ones(session: Session, project_id: str, *, within: float) -> int:
    """Return how many previews a project has under way that began in the last `within` seconds."""
    query = select(func.count()).where(Preview.project_id == project_id, Preview.created_at >= db_now() - within)
    return session.scalar(query) or 0


def by_id(session: Session, preview_id: str) -> Preview | None:
    """Return a preview as it is now."""
    query = select(Preview).where(Preview.id == preview_id)
    return session.scalar(query.execution_options(populate_existing=True))


def waits(session: Session, *, within: float) -> bool:
    """Tell whether a preview waits for a worker, and somebody for the preview."""
    return session.scalar(select(Preview.seq).where(*_waiting(within)).limit(1)) is not None


def claim(session: Session, *, worker_id: str, within: float) -> Preview | None:
    """Take the preview that is first in turn for a worker. None if none waits.

    Projects take turns: first the one with the fewest previews being counted, of these the one with the longest time
    since its last turn, of those without one the one with the oldest preview. Within a project the oldest is first.
    """
    project_turns.wait_in_line(session, TurnKind.PREVIEW)
    counted, oldest = aliased(Preview), func.min(Preview.seq)
    busy = select(func.count()).where(
        counted.project_id == Preview.project_id,
        counted.taken_by.is_not(None),
        counted.result.is_(None),
        counted.created_at >= db_now() - within,
    )
    turn = last_turn(TurnKind.PREVIEW, Preview.project_id)
    waiting = select(oldest).where(*_waiting(within)).group_by(Preview.project_id)
    for seq in session.scalars(waiting.order_by(busy.scalar_subquery(), turn, oldest).limit(10)).all():
        taken = session.execute(
            update(Preview)
            .where(Preview.seq == seq, Preview.taken_by.is_(None))
            .values(taken_by=worker_id)
            .returning(Preview.id)
        ).first()
        preview = by_id(session, taken.id) if taken is not None else None
        if preview is not None:  # else whoever asked has just gone away
            project_turns.note_turn(session, TurnKind.PREVIEW, preview.project_id)
            return preview
    return None


def _waiting(within: float) -> tuple[ColumnElement[bool], ...]:
    return Preview.taken_by.is_(None), Preview.created_at >= db_now() - within


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
