"""SQL of previews: requests that workers claim and answer."""

from __future__ import annotations

from typing import Any

from sqlalchemy import ColumnElement, delete, func, select, update
from sqlalchemy.orm import Session, aliased

from service.kit import project_turns
from service.kit.db import db_now
from service.kit.project_turns import TurnKind, last_turn
from service.tables.previews import PreviewRow


def open_ones(session: Session, project_id: str, *, within: float) -> int:
    """Return how many previews of a project a request has waited for in the last `within` seconds."""
    query = select(func.count()).where(PreviewRow.project_id == project_id, PreviewRow.awaited_at >= db_now() - within)
    return session.scalar(query) or 0


def by_id(session: Session, preview_id: str) -> PreviewRow | None:
    """Return a preview as it is now."""
    query = select(PreviewRow).where(PreviewRow.id == preview_id)
    return session.scalar(query.execution_options(populate_existing=True))


def preview_waits(session: Session, *, within: float) -> bool:
    """Return whether a preview waits for a worker, and somebody for the preview."""
    return session.scalar(select(PreviewRow.seq).where(*_waiting_conditions(within)).limit(1)) is not None


def claim_preview(session: Session, *, worker_id: str, within: float) -> PreviewRow | None:
    """Take the preview that is first in turn for a worker. None if none waits.

    Projects take turns: first the one with the fewest previews being counted, of these the one with the longest time
    since its last turn, of those without one the one with the oldest preview. Within a project the oldest is first.
    """
    project_turns.wait_in_line(session, TurnKind.PREVIEW)
    running_preview, oldest = aliased(PreviewRow), func.min(PreviewRow.seq)
    busy = select(func.count()).where(
        running_preview.project_id == PreviewRow.project_id,
        running_preview.taken_by.is_not(None),
        running_preview.result.is_(None),
        # A worker that died leaves its claim behind: after the time for an answer it no longer counts against the
        # project.
        running_preview.awaited_at >= db_now() - within,
    )
    turn = last_turn(TurnKind.PREVIEW, PreviewRow.project_id)
    waiting = select(oldest).where(*_waiting_conditions(within)).group_by(PreviewRow.project_id)
    for seq in session.scalars(waiting.order_by(busy.scalar_subquery(), turn, oldest).limit(10)).all():
        claimed_rows = session.execute(
            update(PreviewRow)
            .where(PreviewRow.seq == seq, PreviewRow.taken_by.is_(None))
            .values(taken_by=worker_id)
            .returning(PreviewRow.id)
        ).first()
        preview = by_id(session, claimed_rows.id) if claimed_rows is not None else None
        if preview is not None:  # else its caller has just disconnected
            project_turns.note_turn(session, TurnKind.PREVIEW, preview.project_id)
            return preview
    return None


def _waiting_conditions(within: float) -> tuple[ColumnElement[bool], ...]:
    return PreviewRow.taken_by.is_(None), PreviewRow.awaited_at >= db_now() - within


def leave_preview(session: Session, preview_id: str, body_sha256: str) -> None:
    """Let a preview go on without a request, such that the same request finds it again."""
    session.execute(update(PreviewRow).where(PreviewRow.id == preview_id).values(left_sha256=body_sha256))


def take_up_preview(session: Session, project_id: str, body_sha256: str) -> str | None:
    """Return the preview that an earlier request of this body left; no other request can take it up as well."""
    oldest = select(func.min(PreviewRow.seq)).where(
        PreviewRow.project_id == project_id, PreviewRow.left_sha256 == body_sha256
    )
    return session.scalar(
        update(PreviewRow)
        .where(PreviewRow.seq == oldest.scalar_subquery(), PreviewRow.left_sha256 == body_sha256)
        .values(left_sha256=None, awaited_at=db_now())
        .returning(PreviewRow.id)
    )


def set_note(session: Session, preview_id: str, message: str) -> None:
    """Keep what the worker is busy with."""
    session.execute(update(PreviewRow).where(PreviewRow.id == preview_id).values(note=message))


def finish_preview(session: Session, preview_id: str, result: dict[str, Any]) -> None:
    """Store the answer; do nothing if no request waits for it any more."""
    session.execute(update(PreviewRow).where(PreviewRow.id == preview_id).values(result=result))


def delete_preview(session: Session, preview_id: str) -> None:
    """Delete a request, whether it was answered or not."""
    session.execute(delete(PreviewRow).where(PreviewRow.id == preview_id))


def forget_old(session: Session, *, age: float) -> int:
    """Forget requests that are older than `age` seconds; return how many."""
    deleted_rows = session.execute(
        delete(PreviewRow).where(PreviewRow.created_at < db_now() - age).returning(PreviewRow.id)
    )
    return len(deleted_rows.all())
