"""Workers that are alive."""

from __future__ import annotations

from sqlalchemy import BigInteger, Boolean, Double, Integer, String
from sqlalchemy.orm import Mapped, mapped_column

from service.kit.db import Base, Json, db_now


class WorkerRow(Base):
    """One worker process. It renews `seen_at`; a row that has grown old is of one that died."""

    __tablename__ = "workers"

    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    """Of this process alone: a worker that is started again under its name is another."""
    name: Mapped[str] = mapped_column(String(128))
    seen_at: Mapped[float] = mapped_column(Double, default=db_now())
    gpus: Mapped[int] = mapped_column(Integer)
    gpu_memory: Mapped[int | None] = mapped_column(BigInteger)
    """In bytes, of the GPU that trainers use; null if it is not known."""
    trains_in_4bit: Mapped[bool] = mapped_column(Boolean)
    """Whether it has a GPU and the package that holds a base in 4 bits."""
    labels: Mapped[list[str]] = mapped_column(Json)
