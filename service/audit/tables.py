"""The audit log. Triggers of the database refuse to change or delete a row (migration 0007 makes them)."""

from __future__ import annotations

from sqlalchemy import Double, Integer, String
from sqlalchemy.orm import Mapped, mapped_column

from service.kit.db import Base, db_now


class AuditRow(Base):
    """One call or act. Without foreign keys: a row outlives whatever it tells of."""

    __tablename__ = "audit_log"

    seq: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=True)
    id: Mapped[str] = mapped_column(String(40), unique=True)
    at: Mapped[float] = mapped_column(Double, default=db_now(), index=True)
    type: Mapped[str] = mapped_column(String(64))
    outcome: Mapped[str] = mapped_column(String(16))
    """`succeeded`, `replayed` (an earlier answer was given again) or `failed`."""
    status_code: Mapped[int | None] = mapped_column(Integer)
    """The answer's status, where the call failed."""
    actor: Mapped[str] = mapped_column(String(16))
    """`api_key`, `operator` (a command on the server) or `service` (a process of its own accord)."""
    key_id: Mapped[str | None] = mapped_column(String(40), index=True)
    operator: Mapped[str | None] = mapped_column(String(64))
    """The operating system's name of who ran the command."""
    project_id: Mapped[str | None] = mapped_column(String(40), index=True)
    """The project that the call was about; the key's own, where it names no other."""
    object_id: Mapped[str | None] = mapped_column(String(320), index=True)
    request_id: Mapped[str | None] = mapped_column(String(128))
    address: Mapped[str | None] = mapped_column(String(64))
