"""Files: uploaded datasets, and the results of jobs."""

from __future__ import annotations

from sqlalchemy import BigInteger, Double, ForeignKey, Index, Integer, String, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from service.kit.db import Base, db_now


class FileRow(Base):
    """One file: its facts here, its bytes in the blob store under `blob_key`."""

    __tablename__ = "files"
    __table_args__ = (
        Index("ix_files_project_seq", "project_id", "seq"),
        Index("ix_files_project_purpose_seq", "project_id", "purpose", "seq"),
    )

    seq: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=True)
    id: Mapped[str] = mapped_column(String(40), unique=True)
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"))
    filename: Mapped[str] = mapped_column(String(255))
    purpose: Mapped[str] = mapped_column(String(32))
    bytes: Mapped[int] = mapped_column(BigInteger)
    sha256: Mapped[str] = mapped_column(String(64))
    blob_key: Mapped[str] = mapped_column(String(255))
    rows: Mapped[int | None] = mapped_column(Integer)
    """None if only a job's check reads them (Parquet)."""
    packing: Mapped[str] = mapped_column(String(16), default="none", server_default="none")
    """What the bytes are packed in, by themselves and not by the name: `none`, `gzip`, `zstd` or `parquet`."""
    created_at: Mapped[float] = mapped_column(Double, default=db_now())
    expires_at: Mapped[float | None] = mapped_column(Double, index=True)


class FileContentRow(Base):
    """Uploaded bytes that a project has stored once, and how many of its files they are the bytes of."""

    __tablename__ = "file_contents"
    __table_args__ = (UniqueConstraint("project_id", "sha256"),)

    blob_key: Mapped[str] = mapped_column(String(255), primary_key=True)
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"))
    sha256: Mapped[str] = mapped_column(String(64))
    files: Mapped[int] = mapped_column(Integer)
