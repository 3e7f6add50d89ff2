"""A reward job from its rows to the verified adapter."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import torch
from transformers import AutoModelForSequenceClassification

from trainer.contract.methods.reward import RewardHyperparameters
from trainer.engine.adapter_export import Verification
from trainer.engine.data.batches import collate_sequences
from trainer.engine.models.load import load_tokenizer
from trainer.engine.recipe import Recipe
from trainer.engine.reward.classifier import has_score_class
from trainer.engine.reward.model import (
    load_classifier,
    load_reward_model,
    new_reward_model,
    score_sequences,
)
from trainer.engine.scoring.compare_outputs import TOLERANCE, compute_logits, require_close
from trainer.kit.plot_spec import PlotSpec
from trainer.kit.progress import TrainingProgress
from trainer.kit.statistics import Measure
from trainer.recipes.reward.data import RankingData
from trainer.recipes.reward.loop import RewardLoop
from trainer.recipes.reward.losses import pair_losses
from trainer.recipes.reward.rankings import Ranking, collate_rankings


class RewardRecipe(Recipe[RankingData]):
    """Learn a score for whole conversations: the better response of a pair is to have the higher one."""

    plots: ClassVar[tuple[PlotSpec, ...]] = (
        PlotSpec(title="Pair accuracy", y=("pair_accuracy",)),
        PlotSpec(title="Margin between the better and the worse response", y=("margin",)),
    )

    pipeline = RankingData

    @property
    def requested_hyperparameters(self) -> RewardHyperparameters:
        """The hyperparameters as asked for."""
        assert isinstance(self.hyperparameters, RewardHyperparameters)
        return self.hyperparameters

    @property
    def model_class(self) -> str:
        """The class for sequence classification, empty if the family has none."""
        return AutoModelForSequenceClassification.__name__ if has_score_class(self.data.config) else ""

    def prepare_model(self) -> None:
        """Load the base with a score head, and with the start adapter's weights if the job starts from one."""
        self.settle_hyperparameters()
        base = load_classifier(self.job.base, self.dtype.dtype, self.data.pad_id, self.resolved.quantization)
        self.model = new_reward_model(base, self.resolved, self.job.start)

    def measure_model(self, *, full: bool = True) -> tuple[Measure, ...]:
        """Return pair accuracy, margin, how often the best response comes first, and loss; prompts are the clusters."""
        rows = self.data.rows_to_measure(full=full)
        flat = score_sequences(self.model, [response for row in rows for response in row.responses], self.data.pad_id)
        places = iter(flat)
        return ranking_measures(
            rows, [[next(places) for _ in row.responses] for row in rows], self.requested_hyperparameters
        )

    def make_loop(self, progress: TrainingProgress) -> RewardLoop:
        """Return the loop."""
        return RewardLoop(self, progress, self.requested_hyperparameters)

    def verify_result(self, folder: Path) -> Verification:
        """Reload base, adapter and tokenizer as others do, and compare the scores that their classes give.

        Raises TrainerError (`export_mismatch`).
        """
        rows = self.data.probe_rows()
        # The result's own: others find a row's last token by it.
        pad_id = load_tokenizer(folder).pad_token_id
        assert isinstance(pad_id, int)
        reloaded = load_reward_model(self.job.base, folder, self.dtype.dtype, pad_id)
        batch = {
            name: value.to(reloaded.device)
            for name, value in collate_sequences([row.input_ids for row in rows], pad_id).items()
        }
        ours = torch.tensor(score_sequences(self.model, rows, self.data.pad_id))
        theirs = compute_logits(reloaded, batch)[:, 0].cpu()
        # Relative above 1: scores have no scale of their own.
        tolerance = TOLERANCE[self.dtype.dtype] * max(1.0, float(ours.abs().max()))
        difference = require_close("reward model", "scores", [ours], [theirs], tolerance)
        return Verification(rows=len(rows), max_abs_difference=difference, tolerance=tolerance)


def ranking_measures(
    rows: Sequence[Ranking], scores: Sequence[Sequence[float]], given: RewardHyperparameters
) -> tuple[Measure, ...]:
    """Return the measures of rankings from the scores of their responses."""
    lines = tuple(row.line for row in rows)
    pairs = [list(row.iter_pairs()) for row in rows]
    differences = [
        [own[better] - own[worse] for better, worse in found] for found, own in zip(pairs, scores, strict=True)
    ]
    counts = tuple(float(len(found)) for found in pairs)
    ones = (1.0,) * len(rows)
    return (
        Measure(
            name="pair_accuracy",
            label="pair accuracy",
            better="higher",
            kind="rate",
            lines=lines,
            sums=tuple(sum(1.0 if d > 0 else 0.5 * (d == 0) for d in found) for found in differences),
            weights=counts,
        ),
        Measure(
            name="margin",
            label="margin of the better response",
            better="higher",
            lines=lines,
            sums=tuple(sum(found) for found in differences),
            weights=counts,
        ),
        Measure(
            name="top1",
            label="best response first",
            better="higher",
            kind="rate",
            lines=lines,
            sums=tuple(_top1_share(row, own) for row, own in zip(rows, scores, strict=True)),
            weights=ones,
        ),
        Measure(
            name="loss",
            label="loss",
            unit="nats a prompt",
            better="lower",
            lines=lines,
            sums=tuple(_ranking_loss(row, own, given) for row, own in zip(rows, scores, strict=True)),
            weights=ones,
        ),
    )


def _top1_share(row: Ranking, scores: Sequence[float]) -> float:
    """Return whether the highest score is a best response's; of equally high ones, the part that are."""
    highest = [rank for rank, score in zip(row.ranks, scores, strict=True) if score == max(scores)]
    return sum(rank == min(row.ranks) for rank in highest) / len(highest)


def _ranking_loss(row: Ranking, scores: Sequence[float], given: RewardHyperparameters) -> float:
    batch = collate_rankings([row], 0)
    values = torch.tensor(scores, dtype=torch.float64)
    margins = batch["margins"].double() if given.margin else None
    return float(pair_losses(values, batch["pairs"], margins=margins, centering=given.centering).mean())
