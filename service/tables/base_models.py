"""Base models: those that were added beside the catalog file, and what checks found of all."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Double, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from service.kit.db import Base, Json, db_now


class BaseModelRow(Base):
    """One base. `entry` is null for one of the catalog file, of which only the findings are kept here."""

    __tablename__ = "base_models"

    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    entry: Mapped[dict[str, Any] | None] = mapped_column(Json)
    """`service.catalog.BaseModelEntry`."""
    fingerprint: Mapped[str] = mapped_column(String(64))
    """Of the entry that the findings are about."""
    files: Mapped[dict[str, str] | None] = mapped_column(Json)
    """A folder's files as they were first seen, by `fingerprint_folder`: jobs were trained on these."""
    card: Mapped[dict[str, Any] | None] = mapped_column(Json)
    """`trainer.contract.base_model.BaseModelCard`."""
    problem: Mapped[str | None] = mapped_column(Text)
    """Why no job may start from it now, as a sentence; null if nothing is known to be wrong."""
    checked_at: Mapped[float] = mapped_column(Double, default=db_now())
    created_at: Mapped[float] = mapped_column(Double, default=db_now())
