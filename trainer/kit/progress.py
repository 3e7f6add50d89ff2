"""What a run has measured so far. It travels in every checkpoint, so that a resumed run's curves have no gap."""

from __future__ import annotations

import csv
import io
from pathlib import Path

from pydantic import BaseModel

from trainer.contract.events import EvaluationEvent, StepEvent

PROGRESS_NAME = "progress.json"
CSV_HEADER = ("step", "train_loss", "train_accuracy", "valid_loss", "valid_mean_token_accuracy")


class TrainingProgress(BaseModel):
    """Steps and evaluations in their order; `tokens_seen` counts all tokens of the rows, padding left out."""

    steps: list[StepEvent] = []
    evaluations: list[EvaluationEvent] = []
    tokens_seen: int = 0
    train_seconds: float = 0.0

    @property
    def last_step(self) -> int:
        """The number of the last step, 0 before the first."""
        return self.steps[-1].step if self.steps else 0

    def lacks_evaluation(self, step: int, every: int, last: int) -> bool:
        """Return whether the tuned model was to be measured at a step and was not, because the run stopped there."""
        due = step > 0 and (step % every == 0 or step == last)
        return due and not any(evaluation.step == step for evaluation in self.evaluations)

    def save(self, folder: Path) -> None:
        """Write `progress.json` into a checkpoint's folder."""
        (folder / PROGRESS_NAME).write_text(self.model_dump_json(), encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> TrainingProgress:
        """Read a checkpoint's `progress.json`. Raises FileNotFoundError, or ValueError if it is broken."""
        return cls.model_validate_json((folder / PROGRESS_NAME).read_bytes())

    def latest_metrics(self) -> dict[str, float]:
        """Return the newest measurements by their names on the wire."""
        metrics: dict[str, float | None] = {}
        if self.steps:
            last = self.steps[-1]
            metrics = {"step": last.step, "train_loss": last.train_loss, **last.metrics}
            metrics["train_mean_token_accuracy"] = last.train_mean_token_accuracy
        for evaluation in self.evaluations:
            prefix = "full_" if evaluation.full else ""
            metrics[f"{prefix}valid_loss"] = evaluation.valid_loss
            metrics[f"{prefix}valid_mean_token_accuracy"] = evaluation.valid_mean_token_accuracy
            metrics.update({f"{prefix}valid_{name}": value for name, value in evaluation.metrics.items()})
        return {name: value for name, value in metrics.items() if value is not None}

    def to_csv(self) -> str:
        """Return the result file: a line a step, blank if nothing was measured.

        The wire's five columns come first, then the method's own numbers.
        """
        tuned_evaluations = {
            evaluation.step: evaluation for evaluation in self.evaluations if evaluation.model == "tuned"
        }
        own = sorted({name for step in self.steps for name in step.metrics})
        own_valid = sorted({name for evaluation in self.evaluations for name in evaluation.metrics})
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow((*CSV_HEADER, *own, *(f"valid_{name}" for name in own_valid)))
        for step in self.steps:
            at = tuned_evaluations.get(step.step)
            valid = (at.valid_loss, at.valid_mean_token_accuracy) if at else (None, None)
            more = [step.metrics.get(name) for name in own]
            more += [at.metrics.get(name) if at else None for name in own_valid]
            writer.writerow((step.step, step.train_loss, step.train_mean_token_accuracy, *valid, *more))
        return text.getvalue()
