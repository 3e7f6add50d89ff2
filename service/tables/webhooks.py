"""Endpoints of projects, the events that they are told, and the log of deliveries."""

from __future__ import annotations

from sqlalchemy import Double, ForeignKey, Index, Integer, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from service.kit import ids
from service.kit.db import Base, Json, db_now


class WebhookEndpointRow(Base):
    """A project's receiver. It is enabled while `disabled_at` is null."""

    __tablename__ = "webhook_endpoints"

    seq: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=True)
    id: Mapped[str] = mapped_column(String(40), unique=True)
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"), index=True)
    name: Mapped[str] = mapped_column(String(255))
    url: Mapped[str] = mapped_column(Text)
    event_types: Mapped[list[str]] = mapped_column(Json)
    created_at: Mapped[float] = mapped_column(Double, default=db_now())
    updated_at: Mapped[float] = mapped_column(Double, default=db_now())
    secret: Mapped[str] = mapped_column(Text)
    """Sealed; `vault` opens it."""
    secret_hint: Mapped[str] = mapped_column(String(24))
    old_secret: Mapped[str | None] = mapped_column(Text)
    """The secret before the last rotation, sealed; it signs too until `old_secret_until`."""
    old_secret_until: Mapped[float | None] = mapped_column(Double)
    failing_since: Mapped[float | None] = mapped_column(Double)
    """When the first delivery after the last success failed."""
    disabled_at: Mapped[float | None] = mapped_column(Double)
    disabled_reason: Mapped[str | None] = mapped_column(Text)


class WebhookEventRow(Base):
    """Something that happened in a project; kept for a while so that it can be told again."""

    __tablename__ = "webhook_events"

    seq: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=True)
    id: Mapped[str] = mapped_column(String(40), unique=True)
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"), index=True)
    type: Mapped[str] = mapped_column(String(64))
    object_id: Mapped[str] = mapped_column(String(40))
    created_at: Mapped[float] = mapped_column(Double, index=True)


def _attempt_id() -> str:
    return ids.new_id(ids.WEBHOOK_ATTEMPT)


class WebhookAttemptRow(Base):
    """One try to deliver one event. `status_code` is null if no answer came; `error` is null on success.

    `endpoint_id` is null for the receiver from the settings.
    """

    __tablename__ = "webhook_attempts"
    __table_args__ = (Index("ix_webhook_attempts_endpoint_seq", "endpoint_id", "seq"),)

    seq: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=True)
    id: Mapped[str] = mapped_column(String(40), unique=True, default=_attempt_id)
    endpoint_id: Mapped[str | None] = mapped_column(String(40))
    event_id: Mapped[str] = mapped_column(String(40), index=True)
    event_type: Mapped[str] = mapped_column(String(64))
    url: Mapped[str] = mapped_column(Text)
    at: Mapped[float] = mapped_column(Double, default=db_now(), index=True)
    status_code: Mapped[int | None] = mapped_column(Integer)
    error: Mapped[str | None] = mapped_column(Text)
    duration_ms: Mapped[int] = mapped_column(Integer)
