"""The log of deliveries."""

from __future__ import annotations

from sqlalchemy import Double, Integer, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from service.kit.db import Base, db_now


class WebhookAttempt(Base):
    """One try to deliver one event. `status_code` is null where no answer came; `error` is null on success."""

    __tablename__ = "webhook_attempts"

    seq: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=True)
    event_id: Mapped[str] = mapped_column(String(40), index=True)
    url: Mapped[str] = mapped_column(Text)
    at: Mapped[float] = mapped_column(Double, default=db_now())
    status_code: Mapped[int | None] = mapped_column(Integer)
    error: Mapped[str | None] = mapped_column(Text)
    duration_ms: Mapped[int] = mapped_column(Integer)
