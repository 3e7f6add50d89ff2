"""The trainer's voice: one JSON line an event in `events.jsonl`. The worker turns them into the job's events."""

from __future__ import annotations

import time
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter

from trainer.frozen import Frozen

FILE_NAME = "events.jsonl"


PhaseName = Literal[
    "loading", "tokenizing", "evaluating_base", "training", "evaluating", "exporting", "verifying", "reporting"
]


class PhaseEvent(Frozen):
    """The run entered another phase; `message` is a sentence for people."""

    type: Literal["phase"] = "phase"
    time: float = Field(default_factory=time.time)
    phase: PhaseName
    message: str


class ConfiguredEvent(Frozen):
    """Every `auto` is a number now, and the rows are counted."""

    type: Literal["configured"] = "configured"
    time: float = Field(default_factory=time.time)
    hyperparameters: dict[str, Any]
    counts: dict[str, int]
    message: str


class StepEvent(Frozen):
    """One optimizer step, or one iteration of PPO. Loss and accuracy are means over what the step trained on.

    `metrics` has the method's own numbers by their names in the report.

    `tokens_seen` and `tokens_per_second` count all tokens of the rows, prompts included and padding left out.
    """

    type: Literal["step"] = "step"
    time: float = Field(default_factory=time.time)
    step: int
    total_steps: int
    epoch: float
    train_loss: float
    train_mean_token_accuracy: float | None = None
    metrics: dict[str, float] = Field(default_factory=dict)
    learning_rate: float
    grad_norm: float | None = None
    tokens_seen: int
    tokens_per_second: float
    seconds_left: float


class EvaluationEvent(Frozen):
    """A pass over the validation rows; `base` is the model that the job starts from.

    The loss is the method's own over all rows: the negative log-likelihood a token if tokens are imitated.
    """

    type: Literal["evaluation"] = "evaluation"
    time: float = Field(default_factory=time.time)
    model: Literal["base", "tuned"]
    step: int
    total_steps: int
    full: bool
    """Whether all rows were used (`full_valid_loss` on the wire)."""
    valid_loss: float | None = None
    valid_mean_token_accuracy: float | None = None
    metrics: dict[str, float] = Field(default_factory=dict)
    tokens: int = 0


class CheckpointEvent(Frozen):
    """A complete checkpoint lies in `checkpoints/step-N`, its files listed in a `manifest.json` of its own."""

    type: Literal["checkpoint"] = "checkpoint"
    time: float = Field(default_factory=time.time)
    step: int
    path: str
    metrics: dict[str, float]


class WarningEvent(Frozen):
    """Something that people should know and that does not end the run."""

    type: Literal["warning"] = "warning"
    time: float = Field(default_factory=time.time)
    message: str


class ErrorEvent(Frozen):
    """Why the run ended without a result. `code` is stable, `message` says what, where and what to do."""

    type: Literal["error"] = "error"
    time: float = Field(default_factory=time.time)
    code: str
    message: str
    param: str | None = None


Event = Annotated[
    PhaseEvent | ConfiguredEvent | StepEvent | EvaluationEvent | CheckpointEvent | WarningEvent | ErrorEvent,
    Field(discriminator="type"),
]
EVENT: TypeAdapter[Event] = TypeAdapter(Event)
