"""The training loop of pre-training: all tokens in the loss, a floor under the learning rate."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch.optim.lr_scheduler import LambdaLR
from transformers import TrainingArguments

from trainer.engine.data.tokens import IGNORED
from trainer.engine.loop.training_loop import TOKEN_ACCURACY, JobLoop, Scored, loop_arguments
from trainer.engine.recipe import Recipe
from trainer.kit.auto import learning_rate_factor
from trainer.kit.progress import Progress
from trainer.recipes.pretraining.packing import collate
from trainer.recipes.pretraining.scoring import token_scores


class PretrainingLoop(JobLoop):
    """Trains on windows; the update's loss is the mean over all its tokens."""

    def __init__(self, recipe: Recipe, progress: Progress, *, floor: float, **arguments: Any) -> None:
        self._floor = floor
        super().__init__(
            recipe,
            progress,
            rows=recipe.training.rows,
            lengths=recipe.lengths(),
            collate=lambda windows: collate(windows, recipe.pad_id),
            args=loop_arguments(recipe, TrainingArguments, **arguments),
        )

    def loss(self, model: Any, batch: dict[str, torch.Tensor]) -> Scored:
        """Return the negative log-likelihood summed over the batch's tokens."""
        nll, hits = token_scores(model, batch)
        tokens = self.count(batch)
        return Scored(total=nll.sum(), tokens=tokens, metrics={TOKEN_ACCURACY: (float(hits.sum()), tokens)})

    def count(self, batch: dict[str, torch.Tensor]) -> int:
        """Return the batch's tokens."""
        return int((batch["labels"] != IGNORED).sum())

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> LambdaLR:
        """Return the schedule, its fall ending at the floor and not at zero."""
        resolved, floor = self.recipe.resolved, self._floor

        def factor(step: int) -> float:
            warmup = resolved.warmup_steps
            share = learning_rate_factor(resolved.lr_scheduler, step, warmup=warmup, total=num_training_steps)
            return share if step < warmup else floor + (1 - floor) * share

        self.lr_scheduler = LambdaLR(cast(Any, optimizer or self.optimizer), factor)
        self._created_lr_scheduler = True
        return self.lr_scheduler
