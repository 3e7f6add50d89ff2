"""Exports: what was asked for, where it stands, who holds its lease, and where its bytes lie."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from sqlalchemy import BigInteger, Double, ForeignKey, Index, Integer, String, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from service.kit.db import Base, Json, db_now


class ExportStatus(StrEnum):
    """Where an export stands. Only `exports.lifecycle` changes it."""

    QUEUED = "queued"
    RUNNING = "running"
    READY = "ready"
    FAILED = "failed"


AS_STORED = "stored"
"""The precision of an adapter, which is packed as it is."""


class ModelExportRow(Base):
    """One export of a model or of a checkpoint; there is one of each format and precision at most."""

    __tablename__ = "model_exports"
    __table_args__ = (
        UniqueConstraint("model", "format", "precision"),
        Index("ix_model_exports_status", "status", "seq"),
    )

    seq: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=True)
    id: Mapped[str] = mapped_column(String(40), unique=True)
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"), index=True)
    model: Mapped[str] = mapped_column(String(255))
    """`ft:…`, or `ft:…:ckpt-step-N`."""
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), index=True)
    step: Mapped[int | None] = mapped_column(Integer)
    format: Mapped[str] = mapped_column(String(16))
    precision: Mapped[str] = mapped_column(String(16))
    filename: Mapped[str] = mapped_column(String(255))
    created_at: Mapped[float] = mapped_column(Double, default=db_now())
    expires_at: Mapped[float] = mapped_column(Double, index=True)

    status: Mapped[str] = mapped_column(String(16), default=ExportStatus.QUEUED)
    error: Mapped[dict[str, Any] | None] = mapped_column(Json)
    finished_at: Mapped[float | None] = mapped_column(Double)
    blob_key: Mapped[str | None] = mapped_column(String(512))
    bytes: Mapped[int | None] = mapped_column(BigInteger)
    sha256: Mapped[str | None] = mapped_column(String(64))
    verification: Mapped[dict[str, Any] | None] = mapped_column(Json)
    """`trainer.contract.export.ExportCheck`; null for an adapter."""

    lease_token: Mapped[int] = mapped_column(Integer, default=0)
    """Raised by every claim: a write that carries an older one is refused."""
    lease_owner: Mapped[str | None] = mapped_column(String(128))
    lease_expires_at: Mapped[float | None] = mapped_column(Double)
    failures: Mapped[int] = mapped_column(Integer, default=0)
