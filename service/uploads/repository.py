"""SQL of uploads."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from service.kit.db import db_now
from service.uploads.tables import Upload, UploadPart


def get(session: Session, project_id: str, upload_id: str) -> Upload | None:
    """Return a project's upload."""
    return session.scalar(select(Upload).where(Upload.id == upload_id, Upload.project_id == project_id))


def is_over(session: Session, upload_id: str) -> bool:
    """Tell whether an upload's time is over, by the database's clock."""
    return bool(session.scalar(select(Upload.expires_at <= db_now()).where(Upload.id == upload_id)))


def end(session: Session, upload_id: str, status: str, *, file_id: str | None = None) -> bool:
    """Bring a pending upload to its end; False where it is pending no longer."""
    query = update(Upload).where(Upload.id == upload_id, Upload.status == "pending")
    return session.execute(query.values(status=status, file_id=file_id).returning(Upload.id)).first() is not None


def lock_pending(session: Session, upload_id: str) -> bool:
    """Keep a pending upload so until the transaction ends; False where it is pending no longer."""
    query = select(Upload.seq).where(Upload.id == upload_id, Upload.status == "pending", Upload.expires_at > db_now())
    return session.scalar(query.with_for_update()) is not None


def over(session: Session, *, limit: int = 100) -> Sequence[str]:
    """Return pending uploads whose time is over."""
    query = select(Upload.id).where(Upload.status == "pending", Upload.expires_at <= db_now())
    return session.scalars(query.limit(limit)).all()


def parts(session: Session, upload_id: str) -> Sequence[UploadPart]:
    """Return the parts that have come, the first first."""
    return session.scalars(select(UploadPart).where(UploadPart.upload_id == upload_id).order_by(UploadPart.seq)).all()


def received(session: Session, upload_id: str) -> tuple[int, int]:
    """Return how many parts have come, and their bytes."""
    query = select(func.count(), func.coalesce(func.sum(UploadPart.bytes), 0))
    count, total = session.execute(query.where(UploadPart.upload_id == upload_id)).one()
    return count, int(total)
