"""SQL of fine-tuned models."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from service.kit import ids
from service.kit.pagination import Order, Scope, fetch_page
from service.models.tables import AdapterDownload, CheckpointPermission, FineTunedModel


def get(session: Session, project_id: str, model_id: str) -> FineTunedModel | None:
    """Return a project's fine-tuned model."""
    return session.scalar(
        select(FineTunedModel).where(FineTunedModel.id == model_id, FineTunedModel.project_id == project_id)
    )


def of_job(session: Session, job_id: str) -> FineTunedModel | None:
    """Return what a job left, whoever owns it."""
    return session.scalar(select(FineTunedModel).where(FineTunedModel.job_id == job_id))


def all_of(session: Session, project_id: str) -> Sequence[FineTunedModel]:
    """Return a project's fine-tuned models, newest first."""
    return session.scalars(
        select(FineTunedModel).where(FineTunedModel.project_id == project_id).order_by(FineTunedModel.seq.desc())
    ).all()


def remove(session: Session, model: FineTunedModel) -> None:
    """Delete a model's row, and with it what was shared of it."""
    unshare(session, model.id)
    session.execute(delete(FineTunedModel).where(FineTunedModel.seq == model.seq))


def remove_of_job(session: Session, job_id: str) -> None:
    """Delete what a job left: its model, and what was shared of that and of its checkpoints."""
    session.execute(delete(FineTunedModel).where(FineTunedModel.job_id == job_id))
    session.execute(delete(CheckpointPermission).where(CheckpointPermission.job_id == job_id))


def unshare(session: Session, name: str) -> None:
    """End all permissions for a model or checkpoint."""
    session.execute(delete(CheckpointPermission).where(CheckpointPermission.model == name))


def share(
    session: Session, job_id: str, name: str, project_id: str, *, adapter_download: AdapterDownload | None = None
) -> CheckpointPermission:
    """Return a project's permission for a model or checkpoint, made if there is none.

    `adapter_download` None leaves a permission as it is; a new one allows downloads then.
    """
    found = permission(session, project_id, name)
    if found is None:
        found = CheckpointPermission(id=ids.new_id(ids.PERMISSION), model=name, job_id=job_id, project_id=project_id)
        session.add(found)
    if adapter_download is not None:
        found.adapter_download = adapter_download
    session.flush()
    session.refresh(found)
    return found


def permission(session: Session, project_id: str, name: str) -> CheckpointPermission | None:
    """Return a project's permission for another's model or checkpoint."""
    return session.scalar(
        select(CheckpointPermission).where(
            CheckpointPermission.model == name, CheckpointPermission.project_id == project_id
        )
    )


def shared_models(session: Session, project_id: str) -> Sequence[FineTunedModel]:
    """Return the finished models that are shared with a project, newest first."""
    query = (
        select(FineTunedModel)
        .join(CheckpointPermission, CheckpointPermission.model == FineTunedModel.id)
        .where(CheckpointPermission.project_id == project_id)
    )
    return session.scalars(query.order_by(FineTunedModel.seq.desc())).all()


def permission_page(
    session: Session, name: str, *, project_id: str | None, after: str | None, limit: int, order: Order
) -> tuple[Sequence[CheckpointPermission], bool]:
    """Return one page of the permissions for a model or checkpoint."""
    query = select(CheckpointPermission)
    if project_id is not None:
        query = query.where(CheckpointPermission.project_id == project_id)
    scope: Scope = [(CheckpointPermission.model, name)]
    seq, public_id = CheckpointPermission.seq, CheckpointPermission.id
    return fetch_page(session, query, scope=scope, seq=seq, public_id=public_id, after=after, limit=limit, order=order)


def withdraw(session: Session, name: str, permission_id: str) -> bool:
    """Delete a permission; False where there is none."""
    query = delete(CheckpointPermission).where(
        CheckpointPermission.id == permission_id, CheckpointPermission.model == name
    )
    return session.execute(query.returning(CheckpointPermission.seq)).first() is not None
