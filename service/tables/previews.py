"""Previews that are under way: a row is there from the request until its answer is read."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Double, ForeignKey, Integer, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from service.kit.db import Base, Json, db_now


class PreviewRow(Base):
    """One preview: what was asked, which worker counts, what came of it."""

    __tablename__ = "previews"

    seq: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=True)
    id: Mapped[str] = mapped_column(String(40), unique=True)
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id", ondelete="CASCADE"), index=True)
    created_at: Mapped[float] = mapped_column(Double, default=db_now())
    awaited_at: Mapped[float] = mapped_column(Double, default=db_now())
    """When a request last waited for the answer."""
    left_sha256: Mapped[str | None] = mapped_column(String(64))
    """The hash of what was asked, once its request has ended without the answer: the same one, sent again, goes on with
    this row. Null while a request waits."""
    job: Mapped[dict[str, Any]] = mapped_column(Json)
    """The columns of the job that is not created."""
    rows_shown: Mapped[int] = mapped_column(Integer)
    taken_by: Mapped[str | None] = mapped_column(String(64))
    note: Mapped[str | None] = mapped_column(Text)
    """What the worker is busy with before it can count."""
    result: Mapped[dict[str, Any] | None] = mapped_column(Json)
    """`trainer.contract.preview.PreviewOutcome`; null until it is there."""
