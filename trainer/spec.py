"""`job.json`: what the worker hands to the trainer. Pydantic only, so that the service can build it without torch."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from trainer.methods import Method
from trainer.methods.base import Frozen

FROM_SCRATCH = "from-scratch"
"""The id of the base that a new model is made from: nothing."""


class DataFile(Frozen):
    """One dataset file inside the work folder, with the hash that the report states."""

    path: str = Field(pattern=r"^data/[A-Za-z0-9._-]+$")
    filename: str
    sha256: str


class BaseModelRef(Frozen):
    """The base model in `base/`: its catalog id and the fingerprint of the source it was made from.

    `from-scratch` has neither fingerprint nor folder.
    """

    id: str
    fingerprint: str


class ParentModel(Frozen):
    """The model that a job goes on from: an adapter for the same base, in `start/`."""

    id: str
    """`ft:…`, with `:ckpt-step-N` where it is a checkpoint."""
    job_id: str
    sha256: str
    """The SHA-256 of the adapter's weights file."""


class RewardModelRef(Frozen):
    """The reward model in `reward/`, an adapter with a score head.

    Its base lies in `reward_base/` where it is another one than the job's.
    """

    id: str
    job_id: str
    sha256: str
    base: BaseModelRef


class LineageEntry(Frozen):
    """One earlier job that the start model came from, the oldest first."""

    model: str
    job_id: str
    method: str
    training_sha256: str | None
    """None where the file was deleted before the service kept its hash."""
    validation_sha256: str | None = None


class JobSpec(Frozen):
    """Everything that decides a training run. The same spec and the same data give the same adapter."""

    job_id: str
    model_name: str
    """The name that the result will have, `ft:…`; it goes into the model card."""
    base: BaseModelRef
    method: Method
    start: ParentModel | None = None
    reward: RewardModelRef | None = None
    lineage: tuple[LineageEntry, ...] = ()
    training: DataFile
    validation: DataFile | None = None
    seed: Annotated[int, Field(ge=0, le=2147483647)]
    resume: bool = False
    """Whether `checkpoint/` holds a checkpoint to go on from."""
    sample_count: Annotated[int, Field(ge=0, le=64)] = 8
    """How many held-out prompts are answered by base and tuned model for the report."""
