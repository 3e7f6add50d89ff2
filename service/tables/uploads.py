"""Uploads and their parts."""

from __future__ import annotations

from enum import StrEnum

from sqlalchemy import BigInteger, Double, ForeignKey, Index, Integer, String
from sqlalchemy.orm import Mapped, mapped_column

from service.kit.db import Base, db_now

LIFETIME = 3600.0
"""Seconds in which an upload must be completed."""


class UploadStatus(StrEnum):
    """Where an upload stands; all but `pending` are ends."""

    PENDING = "pending"
    COMPLETED = "completed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"


class UploadRow(Base):
    """One file on its way: what was announced, and where it stands."""

    __tablename__ = "uploads"
    __table_args__ = (Index("ix_uploads_status_expires", "status", "expires_at"),)

    seq: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=True)
    id: Mapped[str] = mapped_column(String(40), unique=True)
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"), index=True)
    created_at: Mapped[float] = mapped_column(Double, default=db_now())
    expires_at: Mapped[float] = mapped_column(Double, default=db_now() + LIFETIME)
    status: Mapped[str] = mapped_column(String(16), default=UploadStatus.PENDING)
    filename: Mapped[str] = mapped_column(String(255))
    purpose: Mapped[str] = mapped_column(String(32))
    mime_type: Mapped[str] = mapped_column(String(128))
    bytes: Mapped[int] = mapped_column(BigInteger)
    file_expiry: Mapped[int | None] = mapped_column(Integer)
    """Seconds from its creation after which the file is to be deleted."""
    file_id: Mapped[str | None] = mapped_column(String(40))


class UploadPartRow(Base):
    """A piece of the file; `complete` says which pieces count, and their order."""

    __tablename__ = "upload_parts"

    seq: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=True)
    id: Mapped[str] = mapped_column(String(40), unique=True)
    upload_id: Mapped[str] = mapped_column(ForeignKey("uploads.id", ondelete="CASCADE"), index=True)
    created_at: Mapped[float] = mapped_column(Double, default=db_now())
    bytes: Mapped[int] = mapped_column(BigInteger)
    sha256: Mapped[str] = mapped_column(String(64))
    blob_key: Mapped[str] = mapped_column(String(255))
