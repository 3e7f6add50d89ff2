"""Projects and API keys."""

from __future__ import annotations

from sqlalchemy import Double, ForeignKey, Integer, String, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from service.kit.db import Base, db_now


class ProjectRow(Base):
    """Owns every object; its keys see nothing of another project's."""

    __tablename__ = "projects"

    seq: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=True)
    id: Mapped[str] = mapped_column(String(40), unique=True)
    name: Mapped[str] = mapped_column(String(64), unique=True)
    created_at: Mapped[float] = mapped_column(Double, default=db_now())
    deleted_at: Mapped[float | None] = mapped_column(Double)
    """Once set the project is gone for everybody; the controller erases what it owns, and this row last."""


class ApiKeyRow(Base):
    """One key, kept as an HMAC: the text itself is shown once, when it is made."""

    __tablename__ = "api_keys"

    seq: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=True)
    id: Mapped[str] = mapped_column(String(40), unique=True)
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"), index=True)
    name: Mapped[str] = mapped_column(String(64))
    hint: Mapped[str] = mapped_column(String(24))
    digest: Mapped[str] = mapped_column(String(64), unique=True)
    created_at: Mapped[float] = mapped_column(Double, default=db_now())
    revoked_at: Mapped[float | None] = mapped_column(Double)
    scopes: Mapped[str] = mapped_column(String(64), default="read write")
    """What the key may do: `read`, `write`, `admin`, with spaces between."""
    expires_at: Mapped[float | None] = mapped_column(Double)
    last_used_at: Mapped[float | None] = mapped_column(Double)
    """Within a minute: a use that follows another sooner is not written."""


class IdempotentAnswerRow(Base):
    """What a creation with an `Idempotency-Key` was answered. `answer` is null inside its own transaction alone."""

    __tablename__ = "idempotent_answers"
    __table_args__ = (UniqueConstraint("project_id", "digest"),)

    seq: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=True)
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"))
    digest: Mapped[str] = mapped_column(String(64))
    """The HMAC of the header: its text opens `answer`, and is kept nowhere."""
    fingerprint: Mapped[str] = mapped_column(String(64))
    """The HMAC of path and body."""
    answer: Mapped[str | None] = mapped_column(Text)
    """Sealed."""
    created_at: Mapped[float] = mapped_column(Double, default=db_now(), index=True)
