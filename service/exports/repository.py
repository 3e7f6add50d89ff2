"""SQL of exports. Writes of a worker carry its lease token."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import delete, exists, func, or_, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session, aliased

from service.exports.tables import ExportStatus, ModelExport
from service.jobs.tables import JobCheckpoint
from service.kit import project_turns
from service.kit.db import db_now
from service.kit.pagination import fetch_page
from service.kit.project_turns import TurnKind, last_turn
from service.models.tables import FineTunedModel


def get(session: Session, project_id: str, model: str, export_id: str) -> ModelExport | None:
    """Return an export of a project's model."""
    query = select(ModelExport).where(
        ModelExport.id == export_id, ModelExport.model == model, ModelExport.project_id == project_id
    )
    return session.scalar(query)


def by_id(session: Session, export_id: str) -> ModelExport | None:
    """Return an export as it is now, whoever owns it."""
    query = select(ModelExport).where(ModelExport.id == export_id)
    return session.scalar(query.execution_options(populate_existing=True))


def same(session: Session, model: str, kind: str, precision: str) -> ModelExport | None:
    """Return the export of a model in a format, locked until the transaction ends."""
    query = select(ModelExport).where(
        ModelExport.model == model, ModelExport.format == kind, ModelExport.precision == precision
    )
    return session.scalar(query.with_for_update())


def page(
    session: Session, project_id: str, model: str, *, after: str | None, limit: int
) -> tuple[Sequence[ModelExport], bool]:
    """Return one page of a model's exports, newest first."""
    return fetch_page(
        session,
        select(ModelExport),
        scope=[(ModelExport.project_id, project_id), (ModelExport.model, model)],
        seq=ModelExport.seq,
        public_id=ModelExport.id,
        after=after,
        limit=limit,
        order="desc",
    )


def add(session: Session, *, expires_in: float, **values: Any) -> None:
    """Add an export unless the model has one of its format. Waits for a transaction that is adding it."""
    insert = postgresql.insert if session.get_bind().dialect.name == "postgresql" else sqlite.insert
    session.execute(
        insert(ModelExport)
        .values(
            status=ExportStatus.QUEUED,
            created_at=db_now(),
            expires_at=db_now() + expires_in,
            lease_token=0,
            failures=0,
            **values,
        )
        .on_conflict_do_nothing(index_elements=["model", "format", "precision"])
    )


def prolong(session: Session, export: ModelExport, *, expires_in: float) -> None:
    """Keep an export for at least `expires_in` seconds from now."""
    session.execute(
        update(ModelExport)
        .where(ModelExport.seq == export.seq, ModelExport.expires_at < db_now() + expires_in)
        .values(expires_at=db_now() + expires_in)
    )
    session.refresh(export)


def remove(session: Session, export: ModelExport) -> None:
    """Delete an export's row."""
    session.execute(delete(ModelExport).where(ModelExport.seq == export.seq))


def waits(session: Session) -> bool:
    """Tell whether an export waits for a worker."""
    return session.scalar(select(ModelExport.seq).where(ModelExport.status == ExportStatus.QUEUED).limit(1)) is not None


def claim(session: Session, *, owner: str, lease_seconds: float) -> ModelExport | None:
    """Take the export that is first in turn: raise its token and start a lease, by the database's clock.

    Projects take turns: first the one with the fewest exports being made, of these the one with the longest time
    since its last turn, of those without one the one with the oldest export. Within a project the oldest is first.
    """
    project_turns.wait_in_line(session, TurnKind.EXPORT)
    made, oldest = aliased(ModelExport), func.min(ModelExport.seq)
    running = select(func.count()).where(made.project_id == ModelExport.project_id, made.status == ExportStatus.RUNNING)
    turn = last_turn(TurnKind.EXPORT, ModelExport.project_id)
    queued = select(oldest).where(ModelExport.status == ExportStatus.QUEUED).group_by(ModelExport.project_id)
    for seq in session.scalars(queued.order_by(running.scalar_subquery(), turn, oldest).limit(10)).all():
        taken = session.execute(
            update(ModelExport)
            .where(ModelExport.seq == seq, ModelExport.status == ExportStatus.QUEUED)
            .values(
                status=ExportStatus.RUNNING,
                lease_token=ModelExport.lease_token + 1,
                lease_owner=owner,
                lease_expires_at=db_now() + lease_seconds,
            )
            .returning(ModelExport.id)
        )
        row = taken.first()
        if row is not None:
            export = by_id(session, row.id)
            assert export is not None
            project_turns.note_turn(session, TurnKind.EXPORT, export.project_id)
            return export
    return None


def count_queued(session: Session, project_id: str) -> int:
    """Return how many exports of a project wait for a worker."""
    query = select(func.count()).where(ModelExport.project_id == project_id, ModelExport.status == ExportStatus.QUEUED)
    return session.scalar(query) or 0


def move(session: Session, export_id: str, token: int, target: ExportStatus, **values: Any) -> bool:
    """End an attempt. False where the token is stale, or the export was deleted."""
    moved = session.execute(
        update(ModelExport)
        .where(
            ModelExport.id == export_id, ModelExport.status == ExportStatus.RUNNING, ModelExport.lease_token == token
        )
        .values(status=target, lease_expires_at=None, **values)
        .returning(ModelExport.id)
    )
    return moved.first() is not None


def renew(session: Session, export_id: str, token: int, /, *, lease_seconds: float, **values: Any) -> bool:
    """Prolong a lease. False where the token is stale, or the export was deleted."""
    renewed = session.execute(
        update(ModelExport)
        .where(
            ModelExport.id == export_id, ModelExport.status == ExportStatus.RUNNING, ModelExport.lease_token == token
        )
        .values(lease_expires_at=db_now() + lease_seconds, **values)
        .returning(ModelExport.id)
    )
    return renewed.first() is not None


def pause_wanted(session: Session, export_id: str, token: int, /) -> bool | None:
    """Return False, as exports are never paused; None where the token is stale, or the export was deleted."""
    query = select(func.count()).where(
        ModelExport.id == export_id, ModelExport.status == ExportStatus.RUNNING, ModelExport.lease_token == token
    )
    return False if session.scalar(query) else None


def with_expired_lease(session: Session) -> Sequence[ModelExport]:
    """Return running exports whose worker has not been heard of in time, locked until the transaction ends."""
    query = select(ModelExport).where(
        ModelExport.status == ExportStatus.RUNNING, ModelExport.lease_expires_at < db_now()
    )
    return session.scalars(query.order_by(ModelExport.seq).limit(100).with_for_update(skip_locked=True)).all()


def superfluous(session: Session, *, limit: int = 100) -> Sequence[ModelExport]:
    """Return exports whose time is over, and those whose model or checkpoint is gone."""
    ended = ModelExport.status.in_((ExportStatus.READY, ExportStatus.FAILED))
    model = exists(select(1).where(FineTunedModel.job_id == ModelExport.job_id))
    checkpoint = exists(
        select(1).where(JobCheckpoint.job_id == ModelExport.job_id, JobCheckpoint.step == ModelExport.step)
    )
    query = select(ModelExport).where(
        or_(
            ended & (ModelExport.expires_at <= db_now()),
            ModelExport.step.is_(None) & ~model,
            ModelExport.step.is_not(None) & ~checkpoint,
        )
    )
    return session.scalars(query.order_by(ModelExport.seq).limit(limit)).all()
