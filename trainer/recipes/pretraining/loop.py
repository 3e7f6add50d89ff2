"""The training loop of pre-training: all tokens in the loss, a floor under the learning rate."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch.optim.lr_scheduler import LambdaLR
from transformers import TrainingArguments

from trainer.engine.data.tokens import IGNORED
from trainer.engine.loop.training_loop import TOKEN_ACCURACY, JobLoop, ScoredBatch, loop_arguments
from trainer.engine.recipe import Recipe
from trainer.kit.auto import learning_rate_factor
from trainer.kit.progress import TrainingProgress
from trainer.recipes.pretraining.packing import collate_windows
from trainer.recipes.pretraining.scoring import token_scores


class PretrainingLoop(JobLoop):
    """Trains on windows; the update's loss is the mean over all its tokens."""

    def __init__(self, recipe: Recipe, progress: TrainingProgress, *, floor: float, **arguments: Any) -> None:
        self._floor = floor
        super().__init__(
            recipe,
            progress,
            rows=recipe.data.training.rows,
            lengths=recipe.data.row_lengths(),
            collate=lambda windows: collate_windows(windows, recipe.data.pad_id),
            args=loop_arguments(recipe, TrainingArguments, **arguments),
        )

    def score_batch(self, model: Any, batch: dict[str, torch.Tensor]) -> ScoredBatch:
        """Return the negative log-likelihood summed over the batch's tokens."""
        nll, hits = token_scores(model, batch)
        tokens = self.count_items(batch)
        return ScoredBatch(total=nll.sum(), tokens=tokens, metrics={TOKEN_ACCURACY: (float(hits.sum()), tokens)})

    def count_items(self, batch: dict[str, torch.Tensor]) -> int:
        """Return the batch's tokens."""
        return int((batch["labels"] != IGNORED).sum())

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> LambdaLR:
        """Return the schedule, its fall ending at the floor and not at zero."""
        resolved, floor = self.recipe.resolved, self._floor

        def factor(step: int) -> float:
            warmup = resolved.warmup_steps
            share = learning_rate_factor(resolved.lr_scheduler, step, warmup=warmup, total=num_training_steps)
            # The floor is where the fall ends; the warm-up may begin below it.
            return share if step < warmup else floor + (1 - floor) * share

        self.lr_scheduler = LambdaLR(cast(Any, optimizer or self.optimizer), factor)
        self._created_lr_scheduler = True
        return self.lr_scheduler
