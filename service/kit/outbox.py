"""The outbox: what must happen after a transaction is written in it, as rows that the controller works off.

At least once: a row is marked done after its effect, so an effect may repeat and must bear it.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Any

from sqlalchemy import Double, Index, Integer, String, Text, delete, select, update
from sqlalchemy.orm import Mapped, Session, mapped_column

from service.kit.db import Base, Json, db_now


class Topic(StrEnum):
    """What an outbox row asks for."""

    ENQUEUE_JOB = "enqueue_job"
    TELL_WEBHOOKS = "tell_webhooks"
    """Something happened: find its receivers."""
    SEND_WEBHOOK = "send_webhook"
    """One event to one receiver."""
    DELETE_BLOBS = "delete_blobs"
    ERASE_PROJECT = "erase_project"


class OutboxRow(Base):
    """One effect to come."""

    __tablename__ = "outbox"
    # SQLite would give a removed row's number to the next one: whoever finished the first would remove the second.
    __table_args__ = {"sqlite_autoincrement": True}  # noqa: RUF012 - SQLAlchemy reads it so

    seq: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=True)
    topic: Mapped[str] = mapped_column(String(32), index=True)
    payload: Mapped[dict[str, Any]] = mapped_column(Json)
    lane: Mapped[str | None] = mapped_column(String(40), index=True)
    """Whom the row is for: rows of a busy lane wait while other lanes continue."""
    attempts: Mapped[int] = mapped_column(Integer, default=0)
    due_at: Mapped[float] = mapped_column(Double, default=db_now())
    done_at: Mapped[float | None] = mapped_column(Double, index=True)
    error: Mapped[str | None] = mapped_column(Text)


_PENDING = OutboxRow.done_at.is_(None)
Index(
    "ix_outbox_pending",
    OutboxRow.topic,
    OutboxRow.lane,
    OutboxRow.due_at,
    sqlite_where=_PENDING,
    postgresql_where=_PENDING,
)


def add_effect(session: Session, topic: Topic, *, lane: str | None = None, delay: float = 0.0, **payload: Any) -> None:
    """Ask for an effect, in the caller's transaction, `delay` seconds from now at the earliest."""
    session.add(OutboxRow(topic=topic, lane=lane, payload=payload, due_at=db_now() + delay))


def fetch_due_effects(session: Session, topic: Topic, *, limit: int = 100) -> Sequence[OutboxRow]:
    """Return the due rows of a topic, oldest first."""
    query = (
        select(OutboxRow)
        # Due by the database's clock, which also wrote `due_at`.
        .where(OutboxRow.topic == topic, OutboxRow.done_at.is_(None), OutboxRow.due_at <= db_now())
        .order_by(OutboxRow.seq)
        .limit(limit)
    )
    return session.scalars(query).all()


def mark_done(session: Session, seq: int, *, error: str | None = None) -> None:
    """Note that a row's effect has happened, or (with `error`) that it was given up."""
    session.execute(
        update(OutboxRow)
        .where(OutboxRow.seq == seq)
        .values(done_at=db_now(), error=error, attempts=OutboxRow.attempts + 1)
    )


def remove_effect(session: Session, seq: int) -> None:
    """Forget a row after its effect has happened."""
    session.execute(delete(OutboxRow).where(OutboxRow.seq == seq))


def mark_failed(session: Session, seq: int, *, error: str, retry_in: float) -> None:
    """Note a failed try and make the row due again in `retry_in` seconds."""
    session.execute(
        update(OutboxRow)
        .where(OutboxRow.seq == seq)
        .values(due_at=db_now() + retry_in, error=error, attempts=OutboxRow.attempts + 1)
    )
