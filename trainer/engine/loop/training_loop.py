"""The training loop that the methods share: transformers' Trainer with a stateless order of rows and our events."""

from __future__ import annotations

import math
import time
from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar, cast

import torch
from torch.optim.lr_scheduler import LambdaLR
from transformers import PrinterCallback, ProgressCallback, Trainer, TrainingArguments

from trainer.contract.events import EvaluationEvent, StepEvent
from trainer.engine.data.order import EpochBatchSampler, EpochLoader
from trainer.engine.loop.best import BestKeeper
from trainer.engine.loop.callbacks import FlowCallback
from trainer.engine.recipe import Recipe
from trainer.kit.auto import learning_rate_factor
from trainer.kit.errors import TrainerError
from trainer.kit.progress import TrainingProgress
from trainer.kit.statistics import Measure
from trainer.kit.workdir import INCOMING_FOLDER

TOKEN_ACCURACY = "train_mean_token_accuracy"  # noqa: S105 - a measure, no secret
A = TypeVar("A", bound=TrainingArguments)


@dataclass(frozen=True)
class ScoredBatch:
    """A micro-batch: `total` is the loss SUMMED over its items, `metrics` are sums with their weights.

    `tokens` are the real tokens that went through the model.
    """

    total: torch.Tensor
    tokens: int
    metrics: dict[str, tuple[float, float]] = field(default_factory=dict[str, tuple[float, float]])


@dataclass
class _Window:
    """Sums over the micro-batches of one optimizer step."""

    started: float = 0.0
    total: float = 0.0
    items: int = 0
    tokens: int = 0
    metrics: dict[str, list[float]] = field(default_factory=dict[str, list[float]])

    def add_batch(self, scored: ScoredBatch, items: int) -> None:
        self.total += float(scored.total.detach())
        self.items += items
        self.tokens += scored.tokens
        for name, (value, weight) in scored.metrics.items():
            sums = self.metrics.setdefault(name, [0.0, 0.0])
            sums[0] += value
            sums[1] += weight

    def metric_means(self) -> dict[str, float]:
        return {name: value / weight for name, (value, weight) in self.metrics.items() if weight}


class JobLoop(Trainer):
    """One job's training loop. A method gives `score_batch` and `count_items`.

    `final` are the measures of all rows at the last step, None before.
    """

    def __init__(
        self,
        recipe: Recipe,
        progress: TrainingProgress,
        *,
        rows: Sequence[Any],
        lengths: Sequence[int],
        collate: Callable[[Sequence[Any]], Any],
        args: TrainingArguments | None = None,
        **kwargs: Any,
    ) -> None:
        self.recipe = recipe
        self.progress = progress
        self.final: tuple[Measure, ...] | None = None
        self._rows, self._lengths, self._collate = rows, lengths, collate
        self._window = _Window()
        self._loop_started = 0.0
        self._best = BestKeeper(recipe, self._trained_parameters)
        held_out = recipe.data.validation.rows if recipe.data.validation else None
        given: dict[str, Any] = {
            "model": recipe.model,
            "args": args or loop_arguments(recipe, TrainingArguments),
            "train_dataset": rows,
            "eval_dataset": held_out,
            "processing_class": recipe.data.tokenizer,
            "data_collator": collate,
            "callbacks": [FlowCallback(self)],
        }
        super().__init__(**{**given, **kwargs})
        # `compute_loss` divides by the items of the whole update: the library would divide by the accumulation again.
        self.loss_is_scaled_for_ga = True
        # Both print to stdout, and a run reports by its events alone.
        self.remove_callback(PrinterCallback)
        self.remove_callback(ProgressCallback)

    @abstractmethod
    def score_batch(self, model: Any, batch: Any) -> ScoredBatch:
        """Return the batch's loss summed over its items. Raises TrainerError."""

    @abstractmethod
    def count_items(self, batch: Any) -> int:
        """Return the batch's items: what the update's loss is a mean over, such as trained tokens or pairs."""

    def get_train_dataloader(self) -> EpochLoader:
        """Return batches whose order follows from (seed, epoch) alone."""
        resolved = self.recipe.resolved
        sampler = EpochBatchSampler(self._lengths, resolved.batch_size, resolved.seed)
        return EpochLoader(cast(Any, self._rows), batch_sampler=sampler, collate_fn=self._collate)

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> LambdaLR:
        """Return our own schedule: the library's starts at a rate of zero, which wastes a short run's first step."""
        resolved = self.recipe.resolved
        self.lr_scheduler = LambdaLR(
            cast(Any, optimizer or self.optimizer),
            lambda step: learning_rate_factor(
                resolved.lr_scheduler, step, warmup=resolved.warmup_steps, total=num_training_steps
            ),
        )
        # The library sets this too: without it, another training of the same trainer would keep this schedule.
        self._created_lr_scheduler = True
        return self.lr_scheduler

    def fit(self, checkpoint: Path | None) -> None:
        """Train to the last step, from the checkpoint's step if there is one; then take the best if asked to."""
        if checkpoint is None or not self._was_last(checkpoint):
            self.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        if self._best.restore_best(self.state.global_step):
            self.final = None

    def begin_step(self) -> None:
        """Start the clock and the sums of an optimizer step; called by the callback."""
        now = time.perf_counter()
        self._loop_started = self._loop_started or now
        self._window = _Window(started=now)

    def write_extras(self, folder: Path) -> None:
        """Write what a resumed run needs beyond the library's own files; called by the callback."""
        self._best.save(folder)

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> torch.Tensor:
        """Return the micro-batch's share of the update's mean loss. Raises TrainerError (`loss_not_finite`)."""
        assert not return_outputs, "evaluation scores rows itself and never asks for outputs"
        scored = self.score_batch(model, inputs)
        # Before the backward pass: a NaN from here would reach the weights, and with them the next checkpoint.
        require_finite(float(scored.total.detach()), self.state.global_step + 1, self.recipe.job.spec.method.type)
        items = self.count_items(inputs)
        self._window.add_batch(scored, items)
        return scored.total / (items if num_items_in_batch is None else num_items_in_batch)

    def _get_num_items_in_batch(self, batch_samples: list[Any], device: torch.device) -> int | None:  # noqa: ARG002
        """Count the items of all micro-batches of an update: the mean is over them together."""
        return sum(self.count_items(batch) for batch in batch_samples) or None

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Emit the step's event. The loop calls this once a step, after the optimizer, and once at its end."""
        # A copy: the library writes into what it is given.
        super().log(dict(logs), start_time)
        # The call at the end, which has the run's totals.
        if "grad_norm" not in logs:
            return
        step = self.state.global_step
        grad_norm = require_finite(float(logs["grad_norm"]), step, self.recipe.job.spec.method.type)
        window, progress = self._window, self.progress
        seconds = time.perf_counter() - window.started
        progress.tokens_seen += window.tokens
        progress.train_seconds += seconds
        means = window.metric_means()
        event = StepEvent(
            step=step,
            total_steps=self.state.max_steps,
            epoch=float(self.state.epoch or 0.0),
            train_loss=window.total / window.items,
            train_mean_token_accuracy=means.pop(TOKEN_ACCURACY, None),
            metrics=means,
            learning_rate=float(logs["learning_rate"]),
            grad_norm=grad_norm,
            tokens_seen=progress.tokens_seen,
            tokens_per_second=window.tokens / seconds,
            seconds_left=self._seconds_left(step),
        )
        progress.steps.append(event)
        self.recipe.job.sink.emit(event)

    def evaluate(self, *_args: Any, **_kwargs: Any) -> dict[str, float]:
        """Measure on validation rows: a part of them on the way, all at the last step or if evaluations compete."""
        last = self.state.global_step >= self.state.max_steps
        measures = self.recipe.measure_model(full=last or self._best.compares_evaluations)
        if last:
            self.final = measures
        self.record_evaluation(measures)
        headline = measures[0]
        metrics = {f"eval_{headline.name}": headline.value}
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        # Saved as well: a job that is resumed from here sees that the training had ended.
        if self._best.compare_evaluation(self.state.global_step, headline):
            self.control.should_save = True
            self.control.should_training_stop = True
        return metrics

    def record_evaluation(self, measures: Sequence[Measure]) -> None:
        """Keep a measurement of the tuned model and emit its event."""
        event = evaluation_event(self.recipe, "tuned", self.state.global_step, measures)
        self.progress.evaluations.append(event)
        self.recipe.job.sink.emit(event)

    def create_model_card(self, *_args: Any, **_kwargs: Any) -> None:
        """Do nothing: the card is written once, at the export."""

    def _was_last(self, checkpoint: Path) -> bool:
        """Measure what a stop left out; return whether a checkpoint was the training's last; then its weights are in.

        The library would continue from the checkpoint of a training that had ended before its last epoch did.
        """
        step, resolved = self.progress.last_step, self.recipe.resolved
        self._best.load(checkpoint)
        self.state.global_step, self.state.max_steps = step, resolved.total_steps
        lacking = self.progress.lacks_evaluation(step, resolved.eval_steps, resolved.total_steps)
        if self.recipe.data.validation and lacking:
            # The evaluation is of the checkpoint's weights, and the model still has those of the start.
            self._load_from_checkpoint(str(checkpoint))
            self.evaluate()
            ended = self.control.should_training_stop
        else:
            ended = self._best.ended_early(step)
        if ended or step >= resolved.total_steps or self.recipe.job.meter.check_budget(step, self.progress.tokens_seen):
            self._load_from_checkpoint(str(checkpoint))
            return True
        return False

    def _trained_parameters(self) -> dict[str, torch.Tensor]:
        named = self.recipe.model.named_parameters()
        return {name: parameter for name, parameter in named if parameter.requires_grad}

    def _seconds_left(self, step: int) -> float:
        """Estimate from this run's steps so far, evaluations and checkpoints included."""
        done = step - self._initial_global_step
        elapsed = time.perf_counter() - self._loop_started
        return elapsed / done * (self.state.max_steps - step)


def evaluation_event(recipe: Recipe, model: Any, step: int, measures: Sequence[Measure]) -> EvaluationEvent:
    """Return the event of one evaluation; `model` is "base" or "tuned"."""
    values = {measure.name: measure.value for measure in measures}
    loss, accuracy = values.pop("loss", None), values.pop("token_accuracy", None)
    headline = measures[0]
    return EvaluationEvent(
        model=model,
        step=step,
        total_steps=recipe.resolved.total_steps,
        full=len(headline.lines) == len(recipe.data.measured.rows),
        valid_loss=loss,
        valid_mean_token_accuracy=accuracy,
        metrics=values,
        tokens=int(math.fsum(headline.weights)) if accuracy is not None else 0,
    )


def require_finite(value: float, step: int, method: str) -> float:
    """Return the value of a step's loss or gradient. Raises TrainerError (`loss_not_finite`) if it is not a number."""
    if math.isfinite(value):
        return value
    raise TrainerError(
        "loss_not_finite",
        f"The training diverged: loss or gradient is not a finite number at step {step}. Lower "
        "learning_rate_multiplier or max_grad_norm, or use dtype float32, and start again.",
        param=f"method.{method}.hyperparameters.learning_rate_multiplier",
    )


def loop_arguments(recipe: Recipe, kind: type[A], **more: Any) -> A:
    """Return the loop's configuration. Whatever a library would choose by itself and that changes results is stated."""
    resolved = recipe.resolved
    on_cpu = recipe.model.device.type == "cpu"
    given: dict[str, Any] = {
        "output_dir": str(recipe.job.workdir / INCOMING_FOLDER),
        "per_device_train_batch_size": resolved.batch_size,
        "gradient_accumulation_steps": resolved.gradient_accumulation_steps,
        "num_train_epochs": resolved.n_epochs,
        # Decides over the epochs: a budget may end a run within one.
        "max_steps": resolved.total_steps,
        "learning_rate": resolved.learning_rate,
        "weight_decay": resolved.weight_decay,
        "max_grad_norm": resolved.max_grad_norm,
        "optim": "adamw_torch",
        "seed": resolved.seed,
        "data_seed": resolved.seed,
        # The base's weights are in the chosen dtype already, the adapter's are float32: no autocast on top.
        "bf16": False,
        "fp16": False,
        "use_cpu": on_cpu,
        "activation_checkpointing": resolved.gradient_checkpointing,
        "logging_strategy": "steps",
        "logging_steps": 1,
        # The library would put a mean in the place of a loss that is no number.
        "logging_nan_inf_filter": False,
        "eval_strategy": "steps" if recipe.data.validation else "no",
        "eval_steps": resolved.eval_steps,
        "save_strategy": "steps",
        "save_steps": resolved.checkpoint_steps,
        # Rows are objects here, not columns of which the model takes some.
        "remove_unused_columns": False,
        "dataloader_pin_memory": not on_cpu,
        "report_to": "none",
        "disable_tqdm": True,
    }
    return kind(**{**given, **more})
