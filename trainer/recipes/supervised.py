"""Supervised fine-tuning: TRL's SFTTrainer with a compact head on CPU, on conversations with masks of our own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from datasets import Dataset
from trl.trainer.sft_config import SFTConfig
from trl.trainer.sft_trainer import SFTTrainer

from trainer.contract.job import DataFile
from trainer.contract.rows import ChatRow
from trainer.engine.data.batches import collate_rows
from trainer.engine.data.splits import Split
from trainer.engine.data.tokens import IGNORED, TokenizedRow, fit_rows, tokenize_rows
from trainer.engine.loop.training_loop import TOKEN_ACCURACY, JobLoop, ScoredBatch, loop_arguments
from trainer.engine.recipe import JobContext, Recipe
from trainer.engine.scoring.evaluate import score_rows, subset_rows
from trainer.engine.scoring.head import trained_scores
from trainer.kit.progress import TrainingProgress
from trainer.kit.statistics import Measure

_NEEDED = "token to train on"


class SupervisedRecipe(Recipe):
    """Imitate the assistant's tokens: the loss is their mean negative log-likelihood."""

    training: Split[TokenizedRow]
    validation: Split[TokenizedRow] | None = None
    _chat: Sequence[ChatRow]

    def read_data(self) -> None:
        """Render and tokenize the conversations; only the assistant's tokens are in the loss."""
        self.open_base()
        spec = self.job.spec
        chat, tokenized = self._tokenize_file(spec.training, "training_file")
        limit = self.set_max_length(max((len(row.input_ids) for row in tokenized), default=0))
        self.training = _split_rows(spec.training, chat, tokenized, limit)
        self._chat = chat
        if spec.validation:
            held_out, held_out_tokens = self._tokenize_file(spec.validation, "validation_file")
            self.validation = _split_rows(spec.validation, held_out, held_out_tokens, limit)
            self._chat = held_out
        self.warn_about_dropped_rows(_NEEDED)
        if self.validation is None:
            self._chat = chat

    def sample_rows(self) -> Sequence[ChatRow]:
        """Return the held-out conversations, or else the training ones."""
        return self._chat

    def measure_model(self, *, full: bool = True) -> tuple[Measure, ...]:
        """Return loss and token accuracy."""
        # Training rows say little about new ones: a part of them is enough.
        rows = self.measured.rows if full and self.validation else subset_rows(self.measured.rows)
        return score_rows(self.model, rows, self.pad_id)

    def make_loop(self, progress: TrainingProgress) -> SupervisedLoop:
        """Return the loop on TRL's trainer."""
        return SupervisedLoop(self, progress)

    def _tokenize_file(self, file: DataFile, param: str) -> tuple[list[ChatRow], list[TokenizedRow]]:
        chat = self.read_file(file, param, ChatRow)
        return chat, tokenize_rows(self.template, chat, param=param)


class SupervisedLoop(JobLoop, SFTTrainer):
    """TRL's trainer brings the fused head on GPUs; rows, order, masks and events are the job's."""

    def __init__(self, recipe: SupervisedRecipe, progress: TrainingProgress) -> None:
        rows = recipe.training.rows
        more: dict[str, Any] = {"dataset_kwargs": {"skip_prepare_dataset": True}, "max_length": None}
        super().__init__(
            recipe,
            progress,
            rows=rows,
            lengths=recipe.row_lengths(),
            collate=lambda batch: collate_rows(batch, recipe.pad_id),
            args=loop_arguments(recipe, SFTConfig, **more),
            train_dataset=_make_dataset(rows),
            eval_dataset=_make_dataset(recipe.validation.rows) if recipe.validation else None,
        )

    def score_batch(self, model: Any, batch: Any) -> ScoredBatch:
        """Return the negative log-likelihood of the trained tokens, in nats."""
        log_probs, hits = trained_scores(model, batch, compact=batch["input_ids"].device.type == "cpu")
        return ScoredBatch(
            total=-log_probs.sum(),
            tokens=int(batch["attention_mask"].sum()),
            metrics={TOKEN_ACCURACY: (float(hits.sum()), log_probs.numel())},
        )

    def count_items(self, batch: Any) -> int:
        """Return the trained tokens."""
        return int((batch["labels"][:, 1:] != IGNORED).sum())


def _split_rows(
    file: DataFile, chat: Sequence[ChatRow], rows: Sequence[TokenizedRow], limit: int
) -> Split[TokenizedRow]:
    prepared = fit_rows(rows, limit)
    return Split(
        file=file,
        rows=prepared.rows,
        read=len(chat),
        tokens=prepared.tokens,
        trained_tokens=prepared.trained_tokens,
        cut=prepared.cut,
        dropped=prepared.dropped,
    )


def _make_dataset(rows: Sequence[TokenizedRow]) -> Dataset:
    return Dataset.from_dict(
        {"input_ids": [list(row.input_ids) for row in rows], "labels": [row.labels for row in rows]}
    )


def make_recipe(job: JobContext) -> Recipe:
    """Return what the method does in a run."""
    return SupervisedRecipe(job)
