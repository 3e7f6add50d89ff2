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
from trainer.engine.data.row_pipeline import RowPipeline
from trainer.engine.data.splits import Split
from trainer.engine.data.tokens import IGNORED, TokenizedRow, fit_rows
from trainer.engine.loop.training_loop import TOKEN_ACCURACY, JobLoop, ScoredBatch, loop_arguments
from trainer.engine.recipe import Recipe
from trainer.engine.scoring.evaluate import SUBSET_TOKENS, score_rows
from trainer.engine.scoring.head import trained_scores
from trainer.kit.job_context import JobContext
from trainer.kit.progress import TrainingProgress
from trainer.kit.statistics import Measure


class ConversationData(RowPipeline[ChatRow, list[TokenizedRow], TokenizedRow]):
    """Conversations, of which only the assistant's tokens are in the loss; long ones are cut."""

    row = ChatRow
    needed = "token to train on"

    def tokenize_rows(self, file: DataFile, rows: Sequence[ChatRow], param: str) -> list[TokenizedRow]:
        """Render and tokenize the conversations, some of them as several sequences."""
        renderer = self.open_renderer(file, param)
        return [row for sequences in renderer.render_rows(rows, renderer.encode_sequences) for row in sequences]

    def sequence_lengths(self, tokens: list[TokenizedRow]) -> list[int]:
        """Return each conversation's tokens."""
        return [len(row.input_ids) for row in tokens]

    def fit_rows(self, file: DataFile, rows: Sequence[ChatRow], tokens: list[TokenizedRow]) -> Split[TokenizedRow]:
        """Cut conversations, and drop those left without a trained token."""
        prepared = fit_rows(tokens, self.max_length)
        return Split(
            file=file,
            rows=prepared.rows,
            read=len(rows),
            tokens=prepared.tokens,
            trained_tokens=prepared.trained_tokens,
            cut=prepared.cut,
            dropped=prepared.dropped,
            used_rows=len({row.line for row in prepared.rows}),
        )

    def subset_rows(self, rows: Sequence[TokenizedRow]) -> Sequence[TokenizedRow]:
        """Return conversations with about 2048 tokens together."""
        return rows[:: max(1, -(-sum(len(row.input_ids) for row in rows) // SUBSET_TOKENS))]

    def sample_rows(self) -> Sequence[ChatRow]:
        """Return the held-out conversations, or else the training ones."""
        return self.source


class SupervisedRecipe(Recipe[ConversationData]):
    """Imitate the assistant's tokens: the loss is their mean negative log-likelihood."""

    pipeline = ConversationData

    def measure_model(self, *, full: bool = True) -> tuple[Measure, ...]:
        """Return loss and token accuracy."""
        return score_rows(self.model, self.data.rows_to_measure(full=full), self.data.pad_id)

    def make_loop(self, progress: TrainingProgress) -> SupervisedLoop:
        """Return the loop on TRL's trainer."""
        return SupervisedLoop(self, progress)


class SupervisedLoop(JobLoop, SFTTrainer):
    """TRL's trainer brings the fused head on GPUs; rows, order, masks and events are the job's."""

    def __init__(self, recipe: SupervisedRecipe, progress: TrainingProgress) -> None:
        rows = recipe.data.training.rows
        # Rows are tokens with masks already: TRL would tokenize them again, and cut them at its own default.
        # Without a weight for the routers' loss, TRL leaves the model's outputs as they are.
        more: dict[str, Any] = {
            "dataset_kwargs": {"skip_prepare_dataset": True},
            "max_length": None,
            "router_aux_loss_coef": 0.0,
        }
        super().__init__(
            recipe,
            progress,
            rows=rows,
            lengths=recipe.data.row_lengths(),
            collate=lambda batch: collate_rows(batch, recipe.data.pad_id),
            args=loop_arguments(recipe, SFTConfig, **more),
            train_dataset=_make_dataset(rows),
            eval_dataset=_make_dataset(recipe.data.validation.rows) if recipe.data.validation else None,
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


def _make_dataset(rows: Sequence[TokenizedRow]) -> Dataset:
    return Dataset.from_dict(
        {"input_ids": [list(row.input_ids) for row in rows], "labels": [row.labels for row in rows]}
    )


def make_recipe(job: JobContext) -> Recipe:
    """Return what the method does in a run."""
    return SupervisedRecipe(job)
