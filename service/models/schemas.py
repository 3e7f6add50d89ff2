"""What the wire shows of models."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, Field

from service.catalog import BaseModelEntry
from service.kit.members import LEFT_OUT_IF_NULL
from service.tables.jobs import JobCheckpointRow
from service.tables.models import FineTunedModelRow
from trainer.contract.base_model import BaseModelCard


class ModelObject(BaseModel):
    """A base or a result, in the form of OpenAI's model object."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str
    expires_at: Annotated[int | None, LEFT_OUT_IF_NULL] = None

    @classmethod
    def of_base(cls, entry: BaseModelEntry) -> ModelObject:
        """Show a base model of the catalog."""
        return cls(id=entry.id, created=entry.created, owned_by=entry.owned_by)

    @classmethod
    def of_result(cls, model: FineTunedModelRow, *, owned_by: str) -> ModelObject:
        """Show a fine-tuned model."""
        expires_at = None if model.expires_at is None else int(model.expires_at)
        return cls(id=model.id, created=int(model.created_at), owned_by=owned_by, expires_at=expires_at)

    @classmethod
    def of_checkpoint(cls, name: str, checkpoint: JobCheckpointRow, *, owned_by: str) -> ModelObject:
        """Show a checkpoint of a job."""
        expires_at = None if checkpoint.expires_at is None else int(checkpoint.expires_at)
        return cls(id=name, created=int(checkpoint.created_at), owned_by=owned_by, expires_at=expires_at)


class ModelDetail(ModelObject):
    """One model. A base has a card; both further fields are null for a model that a job made."""

    card: BaseModelCard | None = Field(
        None,
        description="What the base can do and what that takes; null until `models add`, or a worker, has looked at it.",
    )
    problem: str | None = Field(
        None, description="Why no job may start from the base now, and what its operator can do about it."
    )


class ModelList(BaseModel):
    """All models at once: OpenAI's list of models has no pages."""

    object: Literal["list"] = "list"
    data: list[ModelObject]


class ModelDeleted(BaseModel):
    """The answer to a deletion."""

    id: str
    object: Literal["model"] = "model"
    deleted: Literal[True] = True
