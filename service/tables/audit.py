"""The audit log. Triggers of the database refuse to change or delete a row (migration 0007 makes them)."""

from __future__ import annotations

from sqlalchemy import Double, Integer, String
from sqlalchemy.orm import Mapped, mapped_column

from service.kit.db import Base, db_now

_MOST_REQUEST_ID = 128
_TIMES = "*"


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
    """The project that the call was about; the key's own if it names no other, or if the call was refused."""
    object_id: Mapped[str | None] = mapped_column(String(320), index=True)
    request_id: Mapped[str | None] = mapped_column(String(_MOST_REQUEST_ID))
    """The request's id; of a row for several requests, how many they are, `*`, and the id of the last of them."""
    address: Mapped[str | None] = mapped_column(String(64))


def join_count(count: int, request_id: str) -> str:
    """Return what a row for `count` requests has as its request id. No request's id has the sign in it."""
    return request_id if count == 1 else f"{count}{_TIMES}{request_id}"[:_MOST_REQUEST_ID]


def split_count(request_id: str | None) -> tuple[int, str | None]:
    """Return for how many requests a row stands, and the id of the last of them."""
    count, times, last = (request_id or "").partition(_TIMES)
    return (int(count), last) if times else (1, request_id)
