"""SQL of exports. Writes of a worker carry its lease token."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import delete, exists, func, or_, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session, aliased

from service.kit import project_turns
from service.kit.db import db_now
from service.kit.pagination import fetch_page
from service.kit.project_turns import TurnKind, last_turn
from service.tables.exports import ExportStatus, ModelExportRow
from service.tables.jobs import JobCheckpointRow
from service.tables.models import FineTunedModelRow


def get_export(session: Session, project_id: str, model: str, export_id: str) -> ModelExportRow | None:
    """Return an export of a project's model."""
    query = select(ModelExportRow).where(
        ModelExportRow.id == export_id, ModelExportRow.model == model, ModelExportRow.project_id == project_id
    )
    return session.scalar(query)


def by_id(session: Session, export_id: str) -> ModelExportRow | None:
    """Return an export as it is now, whoever owns it."""
    query = select(ModelExportRow).where(ModelExportRow.id == export_id)
    return session.scalar(query.execution_options(populate_existing=True))


def find_same_export(session: Session, model: str, kind: str, precision: str) -> ModelExportRow | None:
    """Return the export of a model in a format, locked until the transaction ends."""
    query = select(ModelExportRow).where(
        ModelExportRow.model == model, ModelExportRow.format == kind, ModelExportRow.precision == precision
    )
    return session.scalar(query.with_for_update())


def fetch_export_page(
    session: Session, project_id: str, model: str, *, after: str | None, limit: int
) -> tuple[Sequence[ModelExportRow], bool]:
    """Return one page of a model's exports, newest first."""
    return fetch_page(
        session,
        select(ModelExportRow),
        scope=[(ModelExportRow.project_id, project_id), (ModelExportRow.model, model)],
        seq=ModelExportRow.seq,
        public_id=ModelExportRow.id,
        after=after,
        limit=limit,
        order="desc",
    )


def add_export(session: Session, *, expires_in: float, **values: Any) -> None:
    """Add an export unless the model has one of its format. Waits for a transaction that is adding it."""
    insert = postgresql.insert if session.get_bind().dialect.name == "postgresql" else sqlite.insert
    session.execute(
        insert(ModelExportRow)
        .values(
            status=ExportStatus.QUEUED,
            created_at=db_now(),
            expires_at=db_now() + expires_in,
            lease_token=0,
            failures=0,
            **values,
        )
        # Two requests for the same export at once make one; both then read the same row.
        .on_conflict_do_nothing(index_elements=["model", "format", "precision"])
    )


def prolong_export(session: Session, export: ModelExportRow, *, expires_in: float) -> None:
    """Keep an export for at least `expires_in` seconds from now."""
    session.execute(
        update(ModelExportRow)
        .where(ModelExportRow.seq == export.seq, ModelExportRow.expires_at < db_now() + expires_in)
        .values(expires_at=db_now() + expires_in)
    )
    session.refresh(export)


def delete_export_row(session: Session, export: ModelExportRow) -> None:
    """Delete an export's row."""
    session.execute(delete(ModelExportRow).where(ModelExportRow.seq == export.seq))


def export_waits(session: Session) -> bool:
    """Return whether an export waits for a worker."""
    return (
        session.scalar(select(ModelExportRow.seq).where(ModelExportRow.status == ExportStatus.QUEUED).limit(1))
        is not None
    )


def claim_export(session: Session, *, owner: str, lease_seconds: float) -> ModelExportRow | None:
    """Take the export that is first in turn: raise its token and start a lease, by the database's clock.

    Projects take turns: first the one with the fewest exports being made, of these the one with the longest time
    since its last turn, of those without one the one with the oldest export. Within a project the oldest is first.
    """
    project_turns.wait_in_line(session, TurnKind.EXPORT)
    running_export, oldest = aliased(ModelExportRow), func.min(ModelExportRow.seq)
    running = select(func.count()).where(
        running_export.project_id == ModelExportRow.project_id, running_export.status == ExportStatus.RUNNING
    )
    turn = last_turn(TurnKind.EXPORT, ModelExportRow.project_id)
    first_in_line = (
        select(oldest).where(ModelExportRow.status == ExportStatus.QUEUED).group_by(ModelExportRow.project_id)
    )
    # Some in reserve: the first may be deleted before the update below takes it.
    for seq in session.scalars(first_in_line.order_by(running.scalar_subquery(), turn, oldest).limit(10)).all():
        claimed_rows = session.execute(
            update(ModelExportRow)
            .where(ModelExportRow.seq == seq, ModelExportRow.status == ExportStatus.QUEUED)
            .values(
                status=ExportStatus.RUNNING,
                lease_token=ModelExportRow.lease_token + 1,
                lease_owner=owner,
                lease_expires_at=db_now() + lease_seconds,
            )
            .returning(ModelExportRow.id)
        )
        row = claimed_rows.first()
        if row is not None:
            export = by_id(session, row.id)
            assert export is not None
            project_turns.note_turn(session, TurnKind.EXPORT, export.project_id)
            return export
    return None


def count_queued(session: Session, project_id: str) -> int:
    """Return how many exports of a project wait for a worker."""
    query = select(func.count()).where(
        ModelExportRow.project_id == project_id, ModelExportRow.status == ExportStatus.QUEUED
    )
    return session.scalar(query) or 0


def move_export(session: Session, export_id: str, token: int, target: ExportStatus, **values: Any) -> bool:
    """End an attempt. False if the token is stale, or the export was deleted."""
    result = session.execute(
        update(ModelExportRow)
        .where(
            ModelExportRow.id == export_id,
            ModelExportRow.status == ExportStatus.RUNNING,
            ModelExportRow.lease_token == token,
        )
        .values(status=target, lease_expires_at=None, **values)
        .returning(ModelExportRow.id)
    )
    return result.first() is not None


def renew_lease(session: Session, export_id: str, token: int, /, *, lease_seconds: float, **values: Any) -> bool:
    """Prolong a lease. False if the token is stale, or the export was deleted."""
    result = session.execute(
        update(ModelExportRow)
        .where(
            ModelExportRow.id == export_id,
            ModelExportRow.status == ExportStatus.RUNNING,
            ModelExportRow.lease_token == token,
        )
        .values(lease_expires_at=db_now() + lease_seconds, **values)
        .returning(ModelExportRow.id)
    )
    return result.first() is not None


def pause_wanted(session: Session, export_id: str, token: int, /) -> bool | None:
    """Return False, as exports are never paused; None if the token is stale, or the export was deleted."""
    query = select(func.count()).where(
        ModelExportRow.id == export_id,
        ModelExportRow.status == ExportStatus.RUNNING,
        ModelExportRow.lease_token == token,
    )
    return False if session.scalar(query) else None


def with_expired_lease(session: Session) -> Sequence[ModelExportRow]:
    """Return running exports with a worker that has not reported in time, locked until the transaction ends."""
    query = select(ModelExportRow).where(
        ModelExportRow.status == ExportStatus.RUNNING, ModelExportRow.lease_expires_at < db_now()
    )
    return session.scalars(query.order_by(ModelExportRow.seq).limit(100).with_for_update(skip_locked=True)).all()


def superfluous_exports(session: Session, *, limit: int = 100) -> Sequence[ModelExportRow]:
    """Return exports that have expired, and those without their model or checkpoint."""
    has_ended = ModelExportRow.status.in_((ExportStatus.READY, ExportStatus.FAILED))
    model = exists(select(1).where(FineTunedModelRow.job_id == ModelExportRow.job_id))
    checkpoint = exists(
        select(1).where(JobCheckpointRow.job_id == ModelExportRow.job_id, JobCheckpointRow.step == ModelExportRow.step)
    )
    query = select(ModelExportRow).where(
        or_(
            has_ended & (ModelExportRow.expires_at <= db_now()),
            ModelExportRow.step.is_(None) & ~model,
            ModelExportRow.step.is_not(None) & ~checkpoint,
        )
    )
    return session.scalars(query.order_by(ModelExportRow.seq).limit(limit)).all()
