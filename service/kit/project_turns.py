"""Turns that projects take at what all processes share: who had the last one, kept in SQL.

A claim of a kind of work (jobs, exports, previews) waits in line for the claims before it, chooses a project, and
notes its turn, all in one transaction: two claims at the same moment never choose by the same state.
"""

from __future__ import annotations

from enum import StrEnum

from sqlalchemy import BigInteger, ColumnElement, ForeignKey, String, func, select, text
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Mapped, Session, mapped_column
from sqlalchemy.sql.elements import SQLCoreOperations

from service.kit.db import Base

_LOCKS = 0x6275726E
"""The first half of the keys of this module's advisory locks."""


class TurnKind(StrEnum):
    """What projects take turns at."""

    JOB = "job"
    EXPORT = "export"
    PREVIEW = "preview"


class ProjectTurnRow(Base):
    """A project's last turn at a kind of work. The highest `number` of a kind is the turn that was taken last."""

    __tablename__ = "project_turns"

    kind: Mapped[str] = mapped_column(String(16), primary_key=True)
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"), primary_key=True)
    number: Mapped[int] = mapped_column(BigInteger)


def wait_in_line(session: Session, kind: TurnKind) -> None:
    """Wait until no other transaction claims this kind of work; others wait until this transaction ends.

    SQLite needs nothing: there is one writer at a time. PostgreSQL frees the lock of a process that froze with it
    after `db.IDLE_SECONDS`.
    """
    if session.get_bind().dialect.name == "postgresql":
        number = list(TurnKind).index(kind)
        # An advisory lock: what it protects is the comparison of all projects, and not one row. It ends with the
        # transaction.
        session.execute(text("SELECT pg_advisory_xact_lock(:locks, :number)"), {"locks": _LOCKS, "number": number})


def note_turn(session: Session, kind: TurnKind, project_id: str) -> None:
    """Note that a project has its turn now."""
    insert = postgresql.insert if session.get_bind().dialect.name == "postgresql" else sqlite.insert
    # A counter and not a time: two turns in one microsecond would otherwise have no order.
    number = select(func.coalesce(func.max(ProjectTurnRow.number), 0) + 1).where(ProjectTurnRow.kind == kind)
    statement = insert(ProjectTurnRow).values(kind=kind, project_id=project_id, number=number.scalar_subquery())
    session.execute(
        statement.on_conflict_do_update(
            index_elements=["kind", "project_id"], set_={"number": statement.excluded.number}
        )
    )


def last_turn(kind: TurnKind, project_id: SQLCoreOperations[str]) -> ColumnElement[int]:
    """Return SQL for the number of a project's last turn: 0 if it has had none, so that it comes first."""
    number = select(ProjectTurnRow.number).where(ProjectTurnRow.kind == kind, ProjectTurnRow.project_id == project_id)
    return func.coalesce(number.scalar_subquery(), 0)
