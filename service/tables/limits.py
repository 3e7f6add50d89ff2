"""Limits that an administrator set for a project, and the time that its jobs have run."""

from __future__ import annotations

from sqlalchemy import BigInteger, Double, ForeignKey, Index, Integer, String, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from service.kit.db import Base, db_now


class ProjectLimitRow(Base):
    """One limit of one project, in place of the default that the settings give."""

    __tablename__ = "project_limits"
    __table_args__ = (UniqueConstraint("project_id", "name"),)

    seq: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=True)
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"))
    name: Mapped[str] = mapped_column(String(32))
    """A field of `QuotaLimits`."""
    value: Mapped[int | None] = mapped_column(BigInteger)
    """Null is unlimited."""


class TrainingSpanRow(Base):
    """One attempt at a job, from its claim to its end. It outlives the job: deleting one gives no time back."""

    __tablename__ = "training_spans"
    __table_args__ = (Index("ix_training_spans_project_ended", "project_id", "ended_at"),)

    seq: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=True)
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"))
    job_id: Mapped[str] = mapped_column(String(40), index=True)
    started_at: Mapped[float] = mapped_column(Double, default=db_now())
    ended_at: Mapped[float | None] = mapped_column(Double)
    """Null while it runs."""
