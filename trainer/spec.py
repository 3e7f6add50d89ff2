"""`job.json`: what the worker hands to the trainer. Pydantic only, so that the service can build it without torch."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from trainer.methods import Method
from trainer.methods.base import Frozen


class DataFile(Frozen):
    """One dataset file inside the work folder, with the hash that the report states."""

    path: str = Field(pattern=r"^data/[A-Za-z0-9._-]+$")
    filename: str
    sha256: str


class BaseModelRef(Frozen):
    """The base model in `base/`: its catalog id and the fingerprint of the source it was made from."""

    id: str
    fingerprint: str


class JobSpec(Frozen):
    """Everything that decides a training run. The same spec and the same data give the same adapter."""

    job_id: str
    model_name: str
    """The name that the result will have, `ft:…`; it goes into the model card."""
    base: BaseModelRef
    method: Method
    training: DataFile
    validation: DataFile | None = None
    seed: Annotated[int, Field(ge=0, le=2147483647)]
    resume: bool = False
    """Whether `checkpoint/` holds a checkpoint to go on from."""
    sample_count: Annotated[int, Field(ge=0, le=64)] = 8
    """How many held-out prompts are answered by base and tuned model for the report."""
