"""The reward model's training loop: each response goes through the model once, whatever number of pairs it is in."""

from __future__ import annotations

from typing import Any

from trainer.contract.methods.reward import RewardHyperparameters
from trainer.engine.loop.training_loop import JobLoop, ScoredBatch
from trainer.engine.recipe import Recipe
from trainer.engine.reward.model import last_scores
from trainer.kit.progress import TrainingProgress
from trainer.recipes.reward.losses import pair_losses
from trainer.recipes.reward.rankings import collate_rankings


class RewardLoop(JobLoop):
    """The loss of a prompt is the mean over its pairs; prompts count alike."""

    def __init__(self, recipe: Recipe, progress: TrainingProgress, given: RewardHyperparameters) -> None:
        self._given = given
        super().__init__(
            recipe,
            progress,
            rows=recipe.data.training.rows,
            lengths=recipe.data.row_lengths(),
            collate=lambda batch: collate_rankings(batch, recipe.data.pad_id),
        )

    def score_batch(self, model: Any, batch: Any) -> ScoredBatch:
        """Return the sum of the prompts' losses."""
        scores = last_scores(model, batch)
        given = self._given
        losses = pair_losses(
            scores, batch["pairs"], margins=batch["margins"] if given.margin else None, centering=given.centering
        )
        differences = (scores[batch["pairs"][:, 0]] - scores[batch["pairs"][:, 1]]).detach()
        right = float((differences > 0).sum()) + 0.5 * float((differences == 0).sum())
        return ScoredBatch(
            total=(losses * batch["weights"]).sum(),
            tokens=int(batch["attention_mask"].sum()),
            metrics={
                "pair_accuracy": (right, len(differences)),
                "margin": (float(differences.sum()), len(differences)),
                "score": (float(scores.detach().sum()), len(scores)),
            },
        )

    def count_items(self, batch: Any) -> int:
        """Return the prompts."""
        return int(batch["prompts"])
