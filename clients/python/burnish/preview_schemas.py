"""What `jobs.preview` answers: tokens, masks, time and memory."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from burnish.schemas import JobQueue, WireModel


class DataPreview(WireModel):
    """What becomes of a data file: `tokens` of one pass, `trained_tokens` of them in the loss, lines of the file."""

    filename: str
    rows: int
    used: int
    tokens: int
    trained_tokens: int
    cut: int = 0
    cut_lines: list[int] = Field(default_factory=list[int])
    dropped: int = 0
    dropped_lines: list[int] = Field(default_factory=list[int])
    skipped: int = 0
    skipped_lines: list[int] = Field(default_factory=list[int])


class SampleToken(WireModel):
    """One token; `text` is empty if a later one completes the character."""

    id: int
    text: str
    trained: bool


class SampleRow(WireModel):
    """A training row, or a part of one, as tokens; `left_out` more follow."""

    line: int
    part: str
    tokens: list[SampleToken]
    left_out: int = 0


class MemoryEstimate(WireModel):
    """The trainer's peak memory in bytes, and how it was estimated."""

    bytes: int
    parts: dict[str, int] = Field(default_factory=dict[str, int])
    method: str


class LayerGroup(WireModel):
    """Matrices of one name in several layers; `reason` is why they would get no adapter, empty if they would."""

    name: str
    count: int
    parameters: int
    reason: str = ""


class AdapterTargets(WireModel):
    """Which matrices would get an adapter, and which not."""

    adapted: list[LayerGroup] = Field(default_factory=list[LayerGroup])
    left_out: list[LayerGroup] = Field(default_factory=list[LayerGroup])


class TimeEstimate(WireModel):
    """The running time; `earlier_jobs` is how many the speed was measured on, 0 if it is assumed."""

    seconds: float | None
    tokens_per_second: float | None
    earlier_jobs: int
    method: str


class Estimates(WireModel):
    """What the job would take."""

    memory: MemoryEstimate
    time: TimeEstimate


class JobPreview(WireModel):
    """What a job would come to; nothing was created. `trained_tokens` is what the job would report at its end."""

    object: str = "fine_tuning.job.preview"
    model: str
    base_model: str
    method: dict[str, Any]
    template_settings: dict[str, Any] = Field(default_factory=dict[str, Any])
    training: DataPreview
    validation: DataPreview | None = None
    steps: int
    trained_tokens: int
    trained_tokens_exact: bool
    ended_by: str | None = None
    adapter_download: str = "allowed"
    warnings: list[str] = Field(default_factory=list[str])
    estimates: Estimates
    queue: JobQueue
    adapter: AdapterTargets | None = None
    sample: list[SampleRow] = Field(default_factory=list[SampleRow])
