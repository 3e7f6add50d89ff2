"""What a report holds, and the sentence that it comes down to."""

from __future__ import annotations

import math
import time
from typing import Any, Literal

from pydantic import Field, computed_field

from trainer.events import Evaluation, Step
from trainer.methods.base import Frozen, Resolved
from trainer.spec import BaseModelRef
from trainer.statistics import Comparison

Outcome = Literal["better", "no_difference_shown", "worse", "not_held_out"]


class DataSummary(Frozen):
    """One data file: what was in it and what was used; line numbers are the first twenty."""

    filename: str
    sha256: str
    rows: int
    used: int
    tokens: int
    trained_tokens: int
    cut: int
    cut_lines: tuple[int, ...]
    dropped: int
    dropped_lines: tuple[int, ...]


class Verdict(Frozen):
    """Whether the tuned model predicts the held-out answers better than the base, in a word and in a sentence."""

    outcome: Outcome
    sentence: str


class Report(Frozen):
    """`report.json`. Losses are in nats a token, times in seconds; `seconds` is by phase."""

    version: int = 1
    created_at: float = Field(default_factory=time.time)
    job_id: str
    model_name: str
    base: BaseModelRef
    method: str
    training: DataSummary
    validation: DataSummary | None
    hyperparameters: Resolved
    requested: dict[str, Any]
    counts: dict[str, int]
    warnings: tuple[str, ...]
    environment: dict[str, Any]
    seconds: dict[str, float]
    tokens_seen: int
    tokens_per_second: float
    measured_on: Literal["validation", "training"]
    comparison: Comparison
    interval_method: str = (
        "95% normal intervals; the row is the cluster, differences are paired by row (arXiv 2411.00640)"
    )
    steps: tuple[Step, ...]
    evaluations: tuple[Evaluation, ...]
    samples: tuple[dict[str, Any], ...]
    verification: dict[str, Any]

    @computed_field
    @property
    def verdict(self) -> Verdict:
        """The outcome, drawn from the paired difference's interval alone."""
        return verdict_of(self.comparison, held_out=self.measured_on == "validation")

    @computed_field
    @property
    def perplexity(self) -> dict[str, float | None]:
        """exp(loss) of base and tuned model; None where it is too large for a number."""
        return {
            "base": perplexity(self.comparison.base_loss.value),
            "tuned": perplexity(self.comparison.tuned_loss.value),
        }


def perplexity(loss: float | None) -> float | None:
    """Return exp(loss), None where there is no loss or the result is no finite number."""
    return math.exp(loss) if loss is not None and loss < 700 else None


def verdict_of(comparison: Comparison, *, held_out: bool) -> Verdict:
    """Return better or worse only where the 95% interval of the difference leaves out zero."""
    difference = comparison.loss_difference
    numbers = f"{comparison.base_loss.value:.3f} to {comparison.tuned_loss.value:.3f} nats a token"
    if not held_out:
        return Verdict(
            outcome="not_held_out",
            sentence=f"Nothing was held out: on training rows the loss went from {numbers}, which says nothing about "
            "new conversations. Give a validation file to measure that.",
        )
    if difference.low is None or difference.high is None:
        return Verdict(
            outcome="no_difference_shown",
            sentence=f"No difference shown: the loss went from {numbers}, but one held-out row allows no interval.",
        )
    interval = f"difference {difference.value:+.3f}, 95% interval {difference.low:+.3f} to {difference.high:+.3f}"
    detail = f"from {numbers} on {comparison.rows} held-out rows ({interval})"
    if difference.high < 0:
        return Verdict(
            outcome="better", sentence=f"The tuned model predicts the held-out answers better: the loss fell {detail}."
        )
    if difference.low > 0:
        return Verdict(
            outcome="worse", sentence=f"The tuned model predicts the held-out answers worse: the loss rose {detail}."
        )
    return Verdict(
        outcome="no_difference_shown",
        sentence=f"No difference shown between base and tuned model: the loss went {detail}.",
    )
