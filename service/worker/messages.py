"""The words of the trainer's events as users read them, and the key under which each shows once in a job."""

from __future__ import annotations

import hashlib
import math
from typing import Any, NotRequired, TypedDict, cast

from trainer.contract import events


class EventRow(TypedDict):
    """The arguments of `jobs.repository.add_event` after the job's id."""

    message: str
    once_key: str
    level: NotRequired[str]
    kind: NotRequired[str]
    data: NotRequired[dict[str, Any]]


_STEP_FIELDS = {
    "step",
    "total_steps",
    "epoch",
    "train_loss",
    "train_mean_token_accuracy",
    "learning_rate",
    "tokens_seen",
    "tokens_per_second",
    "seconds_left",
}


def replace_nonfinite(value: Any) -> Any:
    """Return a JSON value with null for each number that JSON does not have (NaN, infinity)."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: replace_nonfinite(item) for key, item in cast(dict[str, Any], value).items()}
    if isinstance(value, list):
        return [replace_nonfinite(item) for item in cast(list[Any], value)]
    return value


def without_nul(text: str) -> str:
    """Return a text that PostgreSQL takes: it has no NUL in its strings."""
    return text.replace("\0", "\N{REPLACEMENT CHARACTER}")


def row_of(event: events.Event) -> EventRow | None:
    """Return the job's event for a trainer's. None for checkpoints and errors, which have events of their own."""
    match event:
        case events.StepEvent():
            return _make_step_row(event)
        case events.EvaluationEvent():
            return _make_evaluation_row(event)
        case events.PhaseEvent():
            return EventRow(message=without_nul(event.message), once_key=f"phase:{event.phase}")
        case events.ConfiguredEvent():
            return EventRow(message=without_nul(event.message), once_key="configured", data={"counts": event.counts})
        case events.WarningEvent():
            digest = hashlib.sha256(event.message.encode()).hexdigest()
            return EventRow(message=without_nul(event.message), once_key=f"warning:{digest[:32]}", level="warn")
        case _:
            return None


def _make_step_row(event: events.StepEvent) -> EventRow:
    return EventRow(
        message=f"Step {event.step}/{event.total_steps}: training loss={event.train_loss:.2f}",
        once_key=f"step:{event.step}",
        kind="metrics",
        data=replace_nonfinite({**event.model_dump(mode="json", include=_STEP_FIELDS), **event.metrics}),
    )


def _make_evaluation_row(event: events.EvaluationEvent) -> EventRow:
    prefix, words = ("full_valid", "full validation") if event.full else ("valid", "validation")
    model_prefix = "starting model, " if event.model == "base" else ""
    values = {"loss": event.valid_loss, **event.metrics}
    headline = next((f" {name}={value:.2f}" for name, value in values.items() if value is not None), "")
    return EventRow(
        message=f"Step {event.step}/{event.total_steps}: {model_prefix}{words}{headline}",
        once_key=f"evaluation:{event.model}:{event.step}:{'full' if event.full else 'part'}",
        kind="metrics",
        data={
            "step": event.step,
            "total_steps": event.total_steps,
            "model": event.model,
            f"{prefix}_loss": replace_nonfinite(event.valid_loss),
            f"{prefix}_mean_token_accuracy": replace_nonfinite(event.valid_mean_token_accuracy),
            **{f"{prefix}_{name}": replace_nonfinite(value) for name, value in event.metrics.items()},
        },
    )
