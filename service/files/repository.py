"""SQL of files."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from service.files.tables import File
from service.kit.db import db_now
from service.kit.pagination import Order, fetch_page


def get(session: Session, project_id: str, file_id: str) -> File | None:
    """Return a project's file."""
    return session.scalar(select(File).where(File.id == file_id, File.project_id == project_id))


def page(
    session: Session, project_id: str, *, purpose: str | None, after: str | None, limit: int, order: Order
) -> tuple[Sequence[File], bool]:
    """Return one page of a project's files."""
    query = select(File).where(File.project_id == project_id)
    if purpose is not None:
        query = query.where(File.purpose == purpose)
    return fetch_page(session, query, seq=File.seq, public_id=File.id, after=after, limit=limit, order=order)


def remove(session: Session, file: File) -> None:
    """Delete a file's row."""
    session.execute(delete(File).where(File.seq == file.seq))


def expired(session: Session, *, limit: int = 100) -> Sequence[File]:
    """Return files whose time is over."""
    return session.scalars(select(File).where(File.expires_at <= db_now()).limit(limit)).all()
