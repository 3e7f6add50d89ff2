"""Supervised training: TRL's SFTTrainer with a compact head on CPU, a stateless order of rows, and our events."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from datasets import Dataset
from peft import PeftModel
from torch.optim.lr_scheduler import LambdaLR
from transformers import PreTrainedTokenizerBase, PrinterCallback, ProgressCallback
from trl.trainer.sft_config import SFTConfig
from trl.trainer.sft_trainer import DataCollatorForLanguageModeling, SFTTrainer

from trainer.auto import learning_rate_factor
from trainer.engine.callbacks import FlowCallback
from trainer.engine.data import TokenizedRow
from trainer.engine.evaluate import score_rows, subset
from trainer.engine.head import trained_scores
from trainer.engine.order import EpochBatchSampler, EpochLoader
from trainer.errors import TrainerError
from trainer.events import Evaluation, EventSink, Step
from trainer.methods.base import Resolved
from trainer.progress import Progress
from trainer.statistics import RowScore, corpus_accuracy, corpus_loss

INCOMING_FOLDER = ".incoming"


@dataclass(frozen=True)
class TrainingParts:
    """Everything that a method needs to build its trainer."""

    workdir: Path
    base_id: str
    model: PeftModel
    tokenizer: PreTrainedTokenizerBase
    rows: Sequence[TokenizedRow]
    validation: Sequence[TokenizedRow]
    resolved: Resolved
    progress: Progress
    sink: EventSink
    should_stop: Callable[[], bool]


@dataclass
class _Window:
    """Sums over the micro-batches of one optimizer step."""

    nll: float = 0.0
    correct: int = 0
    trained: int = 0
    tokens: int = 0
    started: float = 0.0


class SupervisedTrainer(SFTTrainer):
    """One job's training loop. `final_scores` are the validation rows' scores at the last step, None before."""

    def __init__(self, parts: TrainingParts) -> None:
        self.parts = parts
        self.progress = parts.progress
        self.final_scores: list[RowScore] | None = None
        self._window = _Window()
        self._loop_started = 0.0
        assert isinstance(parts.tokenizer.pad_token_id, int)
        self.pad_id = parts.tokenizer.pad_token_id
        super().__init__(
            model=parts.model,
            args=_arguments(parts),
            train_dataset=_dataset(parts.rows),
            eval_dataset=_dataset(parts.validation) if parts.validation else None,
            processing_class=parts.tokenizer,
            data_collator=DataCollatorForLanguageModeling(pad_token_id=self.pad_id),
            callbacks=[FlowCallback(self)],
        )
        self.remove_callback(PrinterCallback)
        self.remove_callback(ProgressCallback)

    def get_train_dataloader(self) -> EpochLoader:
        """Return batches whose order follows from (seed, epoch) alone."""
        lengths = [len(row.input_ids) for row in self.parts.rows]
        resolved = self.parts.resolved
        sampler = EpochBatchSampler(lengths, resolved.batch_size, resolved.seed)
        return EpochLoader(cast(Any, self.train_dataset), batch_sampler=sampler, collate_fn=self.data_collator)

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> LambdaLR:
        """Return our own schedule: the library's starts at a rate of zero, which wastes a short run's first step."""
        resolved = self.parts.resolved
        self.lr_scheduler = LambdaLR(
            cast(Any, optimizer or self.optimizer),
            lambda step: learning_rate_factor(
                resolved.lr_scheduler, step, warmup=resolved.warmup_steps, total=num_training_steps
            ),
        )
        self._created_lr_scheduler = True
        return self.lr_scheduler

    def fit(self, checkpoint: Path | None) -> None:
        """Train to the last step, from the checkpoint's step where there is one."""
        self.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)

    def begin_step(self) -> None:
        """Start the clock and the sums of an optimizer step; called by the callback."""
        now = time.perf_counter()
        self._loop_started = self._loop_started or now
        self._window = _Window(started=now)

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> torch.Tensor:
        """Return the negative log-likelihood a trained token, over all tokens of the optimizer step.

        Raises TrainerError (`loss_not_finite`).
        """
        assert not return_outputs, "evaluation scores rows itself and never asks for outputs"
        log_probs, hits = trained_scores(model, inputs, compact=inputs["input_ids"].device.type == "cpu")
        total = -log_probs.sum()
        window = self._window
        window.nll += finite(float(total.detach()), self.state.global_step + 1)
        window.correct += int(hits.sum())
        window.trained += log_probs.numel()
        window.tokens += int(inputs["attention_mask"].sum())
        return total / (log_probs.numel() if num_items_in_batch is None else num_items_in_batch)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Emit the step's event. The loop calls this once a step, after the optimizer, and once at its end."""
        super().log(dict(logs), start_time)
        if "grad_norm" not in logs:
            return
        step = self.state.global_step
        grad_norm = finite(float(logs["grad_norm"]), step)
        window, progress = self._window, self.progress
        seconds = time.perf_counter() - window.started
        progress.tokens_seen += window.tokens
        progress.train_seconds += seconds
        event = Step(
            step=step,
            total_steps=self.state.max_steps,
            epoch=float(self.state.epoch or 0.0),
            train_loss=window.nll / window.trained,
            train_mean_token_accuracy=window.correct / window.trained,
            learning_rate=float(logs["learning_rate"]),
            grad_norm=grad_norm,
            tokens_seen=progress.tokens_seen,
            tokens_per_second=window.tokens / seconds,
            seconds_left=self._seconds_left(step),
        )
        progress.steps.append(event)
        self.parts.sink.emit(event)

    def evaluate(self, *_args: Any, **_kwargs: Any) -> dict[str, float]:
        """Score validation rows by token: a subset on the way, all of them at the last step."""
        full = self.state.global_step >= self.state.max_steps
        rows = self.parts.validation if full else subset(self.parts.validation)
        scores = score_rows(self.parts.model, rows, self.pad_id)
        if full:
            self.final_scores = scores
        self.record(scores, full=full or len(rows) == len(self.parts.validation))
        metrics = {"eval_loss": corpus_loss(scores)}
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def record(self, scores: Sequence[RowScore], *, full: bool) -> None:
        """Keep a measurement of the tuned model and emit its event."""
        event = evaluation_event("tuned", self.state.global_step, self.parts.resolved.total_steps, scores, full=full)
        self.progress.evaluations.append(event)
        self.parts.sink.emit(event)

    def create_model_card(self, *_args: Any, **_kwargs: Any) -> None:
        """Do nothing: the card is written once, at the export."""

    def _seconds_left(self, step: int) -> float:
        """Estimate from this run's steps so far, evaluations and checkpoints included."""
        done = step - self._initial_global_step
        elapsed = time.perf_counter() - self._loop_started
        return elapsed / done * (self.state.max_steps - step)


def evaluation_event(model: Any, step: int, total_steps: int, scores: Sequence[RowScore], *, full: bool) -> Evaluation:
    """Return the event of one evaluation; `model` is "base" or "tuned"."""
    return Evaluation(
        model=model,
        step=step,
        total_steps=total_steps,
        full=full,
        valid_loss=corpus_loss(scores),
        valid_mean_token_accuracy=corpus_accuracy(scores),
        tokens=sum(score.tokens for score in scores),
    )


def finite(value: float, step: int) -> float:
    """Return the value of a step's loss or gradient. Raises TrainerError (`loss_not_finite`) where it is no number."""
    if math.isfinite(value):
        return value
    raise TrainerError(
        "loss_not_finite",
        f"The training diverged: loss or gradient is not a finite number at step {step}. Lower "
        "learning_rate_multiplier or max_grad_norm, or use dtype float32, and start again.",
        param="method.supervised.hyperparameters.learning_rate_multiplier",
    )


def _dataset(rows: Sequence[TokenizedRow]) -> Dataset:
    return Dataset.from_dict(
        {"input_ids": [list(row.input_ids) for row in rows], "labels": [row.labels for row in rows]}
    )


def _arguments(parts: TrainingParts) -> SFTConfig:
    """Return the loop's configuration. Whatever TRL would choose by itself and that changes results is stated."""
    resolved = parts.resolved
    on_cpu = parts.model.device.type == "cpu"
    return SFTConfig(
        output_dir=str(parts.workdir / INCOMING_FOLDER),
        per_device_train_batch_size=resolved.batch_size,
        gradient_accumulation_steps=resolved.gradient_accumulation_steps,
        num_train_epochs=resolved.n_epochs,
        max_steps=resolved.total_steps,
        learning_rate=resolved.learning_rate,
        weight_decay=resolved.weight_decay,
        max_grad_norm=resolved.max_grad_norm,
        optim="adamw_torch",
        seed=resolved.seed,
        data_seed=resolved.seed,
        # The base's weights are in the chosen dtype already, the adapter's are float32: no autocast on top.
        bf16=False,
        fp16=False,
        use_cpu=on_cpu,
        # Recomputing activations costs a third of the time: worth it where GPU memory is scarce, not in RAM.
        activation_checkpointing=not on_cpu,
        logging_strategy="steps",
        logging_steps=1,
        logging_nan_inf_filter=False,
        eval_strategy="steps" if parts.validation else "no",
        eval_steps=resolved.eval_steps,
        save_strategy="steps",
        save_steps=resolved.checkpoint_steps,
        dataset_kwargs={"skip_prepare_dataset": True},
        max_length=None,
        remove_unused_columns=False,
        dataloader_pin_memory=not on_cpu,
        report_to="none",
        disable_tqdm=True,
    )
