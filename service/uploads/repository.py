"""SQL of uploads and their parts."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from service.kit.db import db_now
from service.tables.uploads import UploadPartRow, UploadRow, UploadStatus


def get_project_upload(session: Session, project_id: str, upload_id: str) -> UploadRow | None:
    """Return a project's upload."""
    return session.scalar(select(UploadRow).where(UploadRow.id == upload_id, UploadRow.project_id == project_id))


def is_over(session: Session, upload_id: str) -> bool:
    """Return whether an upload's time is over, by the database's clock."""
    return bool(session.scalar(select(UploadRow.expires_at <= db_now()).where(UploadRow.id == upload_id)))


def mark_ended(session: Session, upload_id: str, status: UploadStatus, *, file_id: str | None = None) -> bool:
    """Bring a pending upload to its end; False if it is pending no longer."""
    query = update(UploadRow).where(UploadRow.id == upload_id, UploadRow.status == UploadStatus.PENDING)
    return session.execute(query.values(status=status, file_id=file_id).returning(UploadRow.id)).first() is not None


def lock_pending(session: Session, upload_id: str) -> bool:
    """Keep a pending upload so until the transaction ends; False if it is pending no longer."""
    query = select(UploadRow.seq).where(
        UploadRow.id == upload_id, UploadRow.status == UploadStatus.PENDING, UploadRow.expires_at > db_now()
    )
    return session.scalar(query.with_for_update()) is not None


def overdue_uploads(session: Session, *, limit: int = 100) -> Sequence[str]:
    """Return expired uploads that are still pending."""
    query = select(UploadRow.id).where(UploadRow.status == UploadStatus.PENDING, UploadRow.expires_at <= db_now())
    return session.scalars(query.limit(limit)).all()


def fetch_received_parts(session: Session, upload_id: str) -> Sequence[UploadPartRow]:
    """Return the parts that have come, the first first."""
    return session.scalars(
        select(UploadPartRow).where(UploadPartRow.upload_id == upload_id).order_by(UploadPartRow.seq)
    ).all()


def count_received(session: Session, upload_id: str) -> tuple[int, int]:
    """Return how many parts have come, and their bytes."""
    query = select(func.count(), func.coalesce(func.sum(UploadPartRow.bytes), 0))
    count, total = session.execute(query.where(UploadPartRow.upload_id == upload_id)).one()
    return count, int(total)
