"""`preview.json`: what `python -m trainer.programs.preview` leaves. Pydantic only, as the service reads it."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from trainer.contract.family import AdapterTargets
from trainer.frozen import Frozen

PREVIEW_NAME = "preview.json"
LOG_NAME = "preview.log"


class PreviewCall(Frozen):
    """One line to `python -m trainer.programs.preview --serve`: what is counted, and in which environment."""

    workdir: str
    rows: int
    environment: dict[str, str]


class SampleToken(Frozen):
    """One token. `text` is empty if it is a part of a character that a later token completes."""

    id: int
    text: str
    trained: bool
    """Whether the loss looks at it."""


class SampleRow(Frozen):
    """A training row, or one of its parts, as tokens; `left_out` are those behind the last one shown."""

    line: int
    part: str
    tokens: tuple[SampleToken, ...]
    left_out: int = 0


class DataPreview(Frozen):
    """What becomes of a data file. Lines are numbers in the file, the first thousand of each list."""

    filename: str
    rows: int
    used: int
    tokens: int
    """Of one pass over the used rows."""
    trained_tokens: int
    """Those of them that are in the loss."""
    cut: int
    cut_lines: tuple[int, ...]
    dropped: int
    dropped_lines: tuple[int, ...]
    also_trained: int = 0
    """Of a validation file: its rows that are in the training file too, which are not held out."""
    also_trained_lines: tuple[int, ...] = ()
    skipped: int = 0
    """Rows that the chat template cannot render, left out as `skip_invalid_rows` allows."""
    skipped_lines: tuple[int, ...] = ()


class MemoryEstimate(Frozen):
    """The trainer's peak memory in bytes, by its parts, and how it was estimated."""

    bytes: int
    parts: dict[str, int]
    method: str


class SpeedEstimate(Frozen):
    """Tokens a second of the training steps on the worker that counted; null if nothing can be said."""

    tokens_per_second: float | None
    method: str


class CountedJob(Frozen):
    """What the job would train on, and how."""

    hyperparameters: dict[str, Any]
    template_settings: dict[str, Any] = Field(default_factory=dict[str, Any])
    """The variables that the chat template is run with, such as `enable_thinking`; none if its defaults do."""
    training: DataPreview
    validation: DataPreview | None
    warnings: tuple[str, ...]
    steps: int
    tokens: int
    """All tokens of the whole run, prompts included, padding left out: the job's `trained_tokens`."""
    tokens_exact: bool
    """False if the model's own answers will be trained on: then `tokens` is the most that they can be."""
    ended_by: Literal["budget"] | None
    device: Literal["cpu", "cuda"]
    memory: MemoryEstimate
    speed: SpeedEstimate
    adapter: AdapterTargets | None = None
    """Which matrices would get an adapter, and which not; None if all weights would be trained."""
    sample: tuple[SampleRow, ...]


class PreviewFailure(Frozen):
    """Why there can be no such job."""

    code: str
    message: str
    param: str | None
    details: list[dict[str, Any]] | None = None
    """The problems of a dataset, line by line."""
    fault: bool
    """Whether it is the machine's fault and not the request's."""


class PreviewOutcome(Frozen):
    """What `preview.json` has: one of the two."""

    counted: CountedJob | None = None
    failed: PreviewFailure | None = None
