"""SQL of fine-tuned models."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session

from service.kit import ids
from service.kit.pagination import Order, Scope, fetch_page
from service.tables.jobs import JobCheckpointRow, JobRow, JobState
from service.tables.models import AdapterDownload, CheckpointPermissionRow, FineTunedModelRow


def get_project_model(session: Session, project_id: str, model_id: str) -> FineTunedModelRow | None:
    """Return a project's fine-tuned model."""
    return session.scalar(
        select(FineTunedModelRow).where(FineTunedModelRow.id == model_id, FineTunedModelRow.project_id == project_id)
    )


def get_project_checkpoint(session: Session, project_id: str, name: str) -> JobCheckpointRow | None:
    """Return a checkpoint of a project's job by its name, `ft:…:ckpt-step-N`."""
    model_name, _, step = name.rpartition(":ckpt-step-")
    if not (step.isascii() and step.isdigit() and len(step) < 10):
        return None
    query = select(JobCheckpointRow).join(JobRow, JobRow.id == JobCheckpointRow.job_id)
    return session.scalar(
        query.where(
            JobRow.model_name == model_name, JobRow.project_id == project_id, JobCheckpointRow.step == int(step)
        )
    )


def of_job(session: Session, job_id: str) -> FineTunedModelRow | None:
    """Return what a job left, whoever owns it."""
    return session.scalar(select(FineTunedModelRow).where(FineTunedModelRow.job_id == job_id))


def all_of(session: Session, project_id: str) -> Sequence[FineTunedModelRow]:
    """Return a project's fine-tuned models, newest first."""
    return session.scalars(
        select(FineTunedModelRow)
        .where(FineTunedModelRow.project_id == project_id)
        .order_by(FineTunedModelRow.seq.desc())
    ).all()


def count_models_on(session: Session, base: str) -> int:
    """Return how many results lie on a base, of all projects, and how many unfinished jobs will leave one."""
    unfinished = select(func.count()).where(
        JobRow.base == base, JobRow.state.not_in((JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED))
    )
    results = select(func.count()).where(FineTunedModelRow.base == base)
    return (session.scalar(results) or 0) + (session.scalar(unfinished) or 0)


def delete_model_row(session: Session, model: FineTunedModelRow) -> None:
    """Delete a model's row, and with it what was shared of it."""
    unshare_model(session, model.id)
    session.execute(delete(FineTunedModelRow).where(FineTunedModelRow.seq == model.seq))


def remove_of_job(session: Session, job_id: str) -> None:
    """Delete what a job left: its model, and what was shared of that and of its checkpoints."""
    session.execute(delete(FineTunedModelRow).where(FineTunedModelRow.job_id == job_id))
    session.execute(delete(CheckpointPermissionRow).where(CheckpointPermissionRow.job_id == job_id))


def unshare_model(session: Session, name: str) -> None:
    """End all permissions for a model or checkpoint."""
    session.execute(delete(CheckpointPermissionRow).where(CheckpointPermissionRow.model == name))


def share_model(
    session: Session, job_id: str, name: str, project_id: str, *, adapter_download: AdapterDownload | None = None
) -> CheckpointPermissionRow:
    """Return a project's permission for a model or checkpoint, made if there is none.

    `adapter_download` None leaves a permission as it is; a new one allows downloads then.
    """
    permission = find_permission(session, project_id, name)
    if permission is None:
        permission = CheckpointPermissionRow(
            id=ids.new_id(ids.PERMISSION), model=name, job_id=job_id, project_id=project_id
        )
        session.add(permission)
    if adapter_download is not None:
        permission.adapter_download = adapter_download
    session.flush()
    session.refresh(permission)
    return permission


def find_permission(session: Session, project_id: str, name: str) -> CheckpointPermissionRow | None:
    """Return a project's permission for another's model or checkpoint."""
    return session.scalar(
        select(CheckpointPermissionRow).where(
            CheckpointPermissionRow.model == name, CheckpointPermissionRow.project_id == project_id
        )
    )


def fetch_shared_models(session: Session, project_id: str) -> Sequence[FineTunedModelRow]:
    """Return the finished models that are shared with a project, newest first."""
    query = (
        select(FineTunedModelRow)
        .join(CheckpointPermissionRow, CheckpointPermissionRow.model == FineTunedModelRow.id)
        .where(CheckpointPermissionRow.project_id == project_id)
    )
    return session.scalars(query.order_by(FineTunedModelRow.seq.desc())).all()


def permission_page(
    session: Session, name: str, *, project_id: str | None, after: str | None, limit: int, order: Order
) -> tuple[Sequence[CheckpointPermissionRow], bool]:
    """Return one page of the permissions for a model or checkpoint."""
    query = select(CheckpointPermissionRow)
    if project_id is not None:
        query = query.where(CheckpointPermissionRow.project_id == project_id)
    scope: Scope = [(CheckpointPermissionRow.model, name)]
    seq, public_id = CheckpointPermissionRow.seq, CheckpointPermissionRow.id
    return fetch_page(session, query, scope=scope, seq=seq, public_id=public_id, after=after, limit=limit, order=order)


def delete_permission_row(session: Session, name: str, permission_id: str) -> bool:
    """Delete a permission; False if there is none."""
    query = delete(CheckpointPermissionRow).where(
        CheckpointPermissionRow.id == permission_id, CheckpointPermissionRow.model == name
    )
    return session.execute(query.returning(CheckpointPermissionRow.seq)).first() is not None
