"""SQL of fine-tuned models."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from service.models.tables import FineTunedModel


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
    """Delete a model's row."""
    session.execute(delete(FineTunedModel).where(FineTunedModel.seq == model.seq))
