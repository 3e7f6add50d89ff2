"""`job.json`: what the worker hands to the trainer. Pydantic only, so that the service can build it without torch."""

from __future__ import annotations

from datetime import date
from typing import Annotated

from pydantic import ConfigDict, Field, model_validator

from trainer.contract.methods import Method
from trainer.frozen import Exact, Frozen

DEFAULT_TEMPLATE_DATE = date(2025, 1, 1)
"""What chat templates take for today where no job says which day that is."""
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
    """The model that a job starts from: an adapter for the same base, in `start/`."""

    id: str
    """`ft:…`, with `:ckpt-step-N` if it is a checkpoint."""
    job_id: str | None
    """None if another project shared the model."""
    sha256: str
    """The SHA-256 of the adapter's weights file."""


class RewardModelRef(Frozen):
    """The reward model in `reward/`, an adapter with a score head.

    Its base lies in `reward_base/` if it is another one than the job's.
    """

    id: str
    job_id: str | None
    """None if another project shared the model."""
    sha256: str
    base: BaseModelRef


class LineageEntry(Frozen):
    """One earlier job that the start model came from, the oldest first."""

    model: str
    job_id: str | None
    """None, as is all below, for a model that another project shared: its name is all that was shared of it."""
    method: str | None
    training_sha256: str | None
    """None if the file was deleted before the service kept its hash."""
    validation_sha256: str | None = None


class Budget(Exact):
    """What the training may use up; whatever is used up first ends it, with the model trained so far as the result."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, json_schema_extra={"minProperties": 1})

    max_steps: Annotated[int, Field(ge=1, le=10_000_000)] | None = None
    """Steps as the job's events count them."""
    max_tokens: Annotated[int, Field(ge=1, le=2**53)] | None = None
    """Tokens as `trained_tokens` counts them: prompts included, padding left out, every epoch anew."""
    max_gpu_minutes: Annotated[float, Field(gt=0, le=10_000_000)] | None = None
    """Minutes on a worker, all attempts together; a CPU's count like a GPU's."""

    @model_validator(mode="after")
    def _limits_something(self) -> Budget:
        if not self.model_fields_set or all(value is None for value in self.model_dump().values()):
            raise ValueError("a budget needs max_steps, max_tokens or max_gpu_minutes")
        return self


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
    template_date: date = DEFAULT_TEMPLATE_DATE
    """What chat templates take for today, the day on which the job was created: a resumed job has the same rows."""
    budget: Budget | None = None
    used_seconds: Annotated[float, Field(ge=0)] = 0.0
    """How long the job has run before this trainer started, all attempts together."""
    resume: bool = False
    """Whether `checkpoint/` holds a checkpoint to continue from."""
    python_graders: bool = False
    """Whether the operator lets `python` graders be run."""
    sample_count: Annotated[int, Field(ge=0, le=64)] = 8
    """How many held-out prompts are answered by base and tuned model for the report."""
