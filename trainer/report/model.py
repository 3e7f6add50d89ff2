"""What a report holds, and the sentence that it comes down to."""

from __future__ import annotations

import math
import time
from typing import Any, Literal

from pydantic import Field, computed_field

from trainer.contract.events import EvaluationEvent, StepEvent
from trainer.contract.family import AdapterTargets
from trainer.contract.job import BaseModelRef, LineageEntry, ParentModel, RewardModelRef
from trainer.contract.methods.base import Kinds, Resolved
from trainer.frozen import Frozen
from trainer.kit.data_summary import DataSummary
from trainer.kit.plot_spec import PlotSpec
from trainer.kit.statistics import MeasureComparison

Outcome = Literal["better", "no_difference_shown", "worse", "not_held_out"]


class Verdict(Frozen):
    """Whether the tuned model is better than the one it started from, in a word and in a sentence."""

    outcome: Outcome
    sentence: str


class Report(Frozen):
    """`report.json`. The first measure of `comparison` decides; times are in seconds; `seconds` is by phase.

    "base" is the model that the job started from: the base itself, or `start` if it started from a job's result.
    """

    version: int = 2
    created_at: float = Field(default_factory=time.time)
    job_id: str
    model_name: str
    base: BaseModelRef
    start: ParentModel | None = None
    reward: RewardModelRef | None = None
    lineage: tuple[LineageEntry, ...] = ()
    kind: Kinds = "adapter"
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
    comparison: tuple[MeasureComparison, ...]
    plots: tuple[PlotSpec, ...] = ()
    interval_method: str = (
        "95% normal intervals; the row is the cluster, differences are paired by row (arXiv 2411.00640); "
        "rates of one trial a row have Wilson's interval"
    )
    steps: tuple[StepEvent, ...]
    evaluations: tuple[EvaluationEvent, ...]
    samples: tuple[dict[str, Any], ...]
    verification: dict[str, Any]
    adapter: AdapterTargets | None = None
    """Which matrices got an adapter, and which not; None if all weights were trained."""

    @computed_field
    @property
    def verdict(self) -> Verdict:
        """The outcome, drawn from the paired difference's interval alone."""
        return verdict_of(self.comparison[0], held_out=self.held_out)

    @property
    def held_out(self) -> bool:
        """Whether the models were compared on rows, or at least on some, that were not trained on."""
        if self.measured_on == "training" or self.validation is None:
            return False
        return self.validation.also_trained < self.validation.rows

    @computed_field
    @property
    def perplexity(self) -> dict[str, float | None] | None:
        """exp(loss) of base and tuned model if the headline is a loss a token, else None."""
        headline = self.comparison[0]
        if headline.unit != "nats a token":
            return None
        return {"base": perplexity_of_loss(headline.base.value), "tuned": perplexity_of_loss(headline.tuned.value)}


def perplexity_of_loss(loss: float | None) -> float | None:
    """Return exp(loss), None if there is no loss or the result is not a finite number."""
    return math.exp(loss) if loss is not None and loss < 700 else None


def verdict_of(measure: MeasureComparison, *, held_out: bool) -> Verdict:
    """Return better or worse only if the 95% interval of the paired difference leaves out zero."""
    difference = measure.difference
    unit = f" {measure.unit}" if measure.unit else ""
    numbers = f"from {measure.base.value:.3f} to {measure.tuned.value:.3f}{unit}"
    if not held_out:
        return Verdict(
            outcome="not_held_out",
            sentence=f"Nothing was held out: on training rows the {measure.label} went {numbers}, which says nothing "
            "about new rows. Give a validation file of other rows to measure that.",
        )
    if difference.low is None or difference.high is None:
        return Verdict(
            outcome="no_difference_shown",
            sentence=f"No difference shown: the {measure.label} went {numbers}, but one held-out row allows no "
            "interval.",
        )
    interval = f"difference {difference.value:+.3f}, 95% interval {difference.low:+.3f} to {difference.high:+.3f}"
    detail = f"{numbers} on {measure.rows} held-out rows ({interval})"
    if difference.low <= 0 <= difference.high:
        return Verdict(
            outcome="no_difference_shown",
            sentence=f"No difference shown between base and tuned model: the {measure.label} went {detail}.",
        )
    outcome, verb = _describe_direction(measure)
    return Verdict(
        outcome=outcome, sentence=f"The tuned model is {outcome} on held-out rows: the {measure.label} {verb} {detail}."
    )


def _describe_direction(measure: MeasureComparison) -> tuple[Literal["better", "worse"], str]:
    rose = measure.difference.value > 0
    higher_is_better = measure.better == "higher"
    return "better" if rose == higher_is_better else "worse", "rose" if rose else "fell"
