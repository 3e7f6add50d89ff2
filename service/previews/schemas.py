"""What the wire shows of a preview."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, Field

from service.jobs.schemas import JobQueueObject
from service.tables.models import AdapterDownload
from trainer.contract.family import AdapterTargets
from trainer.contract.preview import DataPreview, MemoryEstimate, SampleRow


class TimeEstimate(BaseModel):
    """How long the job would run once it has a worker, and where the number comes from."""

    seconds: float | None = Field(description="null if there is no estimate")
    tokens_per_second: float | None
    earlier_jobs: int = Field(description="How many jobs of this service the speed was measured on; 0: it is assumed.")
    method: str


class PreviewEstimates(BaseModel):
    """What the job would take."""

    memory: MemoryEstimate
    time: TimeEstimate


class PreviewObject(BaseModel):
    """What a job with this body would come to. Nothing was created."""

    object: Literal["fine_tuning.job.preview"] = "fine_tuning.job.preview"
    model: str
    base_model: str
    method: dict[str, Any] = Field(description="With every `auto` as the number that it would become.")
    template_settings: dict[str, Any] = Field(
        default_factory=dict[str, Any],
        description="The variables that the chat template is run with, such as `enable_thinking`, in training as "
        "in chat; empty if its defaults do.",
    )
    training: DataPreview
    validation: DataPreview | None
    steps: int
    trained_tokens: int = Field(
        description="All tokens of the run, every epoch, prompts included: what the job would report at its end."
    )
    trained_tokens_exact: bool = Field(
        description="False if the model's own answers are trained on: then `trained_tokens` is the most it can be."
    )
    ended_by: Literal["budget"] | None
    adapter_download: AdapterDownload = Field(
        description="`blocked`: what such a job leaves could not be downloaded or exported, see the job's own."
    )
    warnings: list[str]
    estimates: PreviewEstimates
    queue: JobQueueObject
    adapter: AdapterTargets | None = Field(
        description="Which matrices would get an adapter, and which not and why; null if all weights are trained."
    )
    sample: list[SampleRow]
