"""What a job may ask of the worker that runs it, and whether a worker has that."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from service.kit.settings import LABEL
from service.workers.capacity import GB, Capacity

Label = Annotated[str, StringConstraints(pattern=f"^{LABEL}$")]


class Resources(BaseModel):
    """What the worker must have. Left out, the job runs on any worker and uses its GPU if there is one."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    gpus: int | None = Field(
        None,
        ge=0,
        le=1,
        strict=True,
        description="1: only on a worker with a GPU; 0: on the CPU, whatever the worker has. A job uses one at most.",
    )
    gpu_memory_gb: float | None = Field(
        None,
        gt=0,
        le=10000,
        strict=True,
        description="The least memory of the worker's GPU, in GB (10⁹ bytes); asks for a GPU.",
    )
    labels: list[Label] = Field(
        default=[], max_length=16, description="Words that the worker's BURNISH_WORKER_LABELS must all have."
    )

    @model_validator(mode="after")
    def _no_memory_without_gpu(self) -> Resources:
        if self.gpus == 0 and self.gpu_memory_gb is not None:
            raise ValueError("gpu_memory_gb asks for a GPU and gpus 0 for none: leave one of them out")
        return self

    @property
    def needs_gpu(self) -> bool:
        """Whether the worker must have a GPU."""
        return self.gpus == 1 or self.gpu_memory_gb is not None

    def describe_lack(self, capacity: Capacity) -> str | None:
        """Return what a worker lacks, as the end of "the worker has …"; None if the job can run on it."""
        if self.needs_gpu and not capacity.gpus:
            return "no GPU"
        needed_memory, there = self.gpu_memory_gb, capacity.gpu_memory
        if needed_memory is not None and there is None:
            return "a GPU of unknown memory (set BURNISH_WORKER_GPU_MEMORY_GB)"
        if needed_memory is not None and there is not None and there < needed_memory * GB:
            return f"a GPU with {there / GB:.1f} GB"
        missing_labels = [label for label in self.labels if label not in capacity.labels]
        return f"no label {', '.join(missing_labels)}" if missing_labels else None
