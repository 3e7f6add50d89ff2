"""Odds-ratio preference optimisation (Hong et al. 2024, arXiv 2403.07691): no reference, one loss for both aims."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, ClassVar

import torch
from torch import nn

from trainer.contract.methods.orpo import OrpoHyperparameters
from trainer.engine.loop.training_loop import JobLoop, ScoredBatch
from trainer.engine.preferences.beta import BetaRecipe, measure_each_row
from trainer.engine.preferences.pairs import PairData, PreferenceRecipe, collate_pairs, sequence_log_probs
from trainer.engine.recipe import Recipe
from trainer.engine.scoring.evaluate import score_rows
from trainer.kit.job_context import JobContext
from trainer.kit.plot_spec import PlotSpec
from trainer.kit.progress import TrainingProgress
from trainer.kit.statistics import Measure


def log_odds_ratio(chosen: torch.Tensor, rejected: torch.Tensor) -> torch.Tensor:
    """Return log(odds(chosen) / odds(rejected)) [n] from mean log-probabilities a token [n], odds = p / (1 - p)."""
    return (chosen - rejected) - (_log1mexp(chosen) - _log1mexp(rejected))


def orpo_loss(chosen: torch.Tensor, rejected: torch.Tensor, beta: float) -> torch.Tensor:
    """Return the loss of each pair [n] from mean log-probabilities a token [n]: NLL - β log σ(log odds ratio)."""
    return -chosen - beta * nn.functional.logsigmoid(log_odds_ratio(chosen, rejected))


class OrpoRecipe(BetaRecipe[PairData], PreferenceRecipe):
    """Imitate the preferred answer and raise its odds above the other's."""

    plots: ClassVar[tuple[PlotSpec, ...]] = (
        PlotSpec(title="preferred answer has the higher odds", y=("odds_accuracy",)),
        PlotSpec(title="log odds ratio", y=("log_odds_ratio",)),
    )
    hyperparameters: OrpoHyperparameters

    def make_loop(self, progress: TrainingProgress) -> OrpoLoop:
        """Return the loop."""
        return OrpoLoop(self, progress)

    def measure_model(self, *, full: bool = True) -> tuple[Measure, ...]:
        """Measure how often and how far the preferred answer's odds are higher, and the loss."""
        pairs = self.data.rows_to_measure(full=full)
        chosen = _mean_log_probs(self.model, [pair.chosen for pair in pairs], self.data.pad_id)
        rejected = _mean_log_probs(self.model, [pair.rejected for pair in pairs], self.data.pad_id)
        ratio = log_odds_ratio(chosen, rejected)
        measure = partial(measure_each_row, lines=[pair.line for pair in pairs])
        return (
            measure("odds_accuracy", "preferred answer has the higher odds", values=ratio > 0, better="higher"),
            measure("log_odds_ratio", "log odds ratio", values=ratio, better="higher"),
            measure("loss", "loss", values=orpo_loss(chosen, rejected, self.beta), better="lower"),
        )


class OrpoLoop(JobLoop):
    """Every update's loss is the mean over its pairs."""

    recipe: OrpoRecipe

    def __init__(self, recipe: OrpoRecipe, progress: TrainingProgress) -> None:
        super().__init__(
            recipe,
            progress,
            rows=recipe.data.training.rows,
            lengths=recipe.data.row_lengths(),
            collate=lambda pairs: collate_pairs(pairs, recipe.data.pad_id),
        )

    def score_batch(self, model: Any, batch: Any) -> ScoredBatch:
        """Return the pairs' losses, and how the odds stand."""
        sums, sizes = sequence_log_probs(model, batch)
        chosen, rejected = (sums / sizes).view(2, -1)
        ratio = log_odds_ratio(chosen, rejected).detach()
        pairs = chosen.numel()
        return ScoredBatch(
            total=orpo_loss(chosen, rejected, self.recipe.beta).sum(),
            tokens=int(batch["attention_mask"].sum()),
            metrics={
                "odds_accuracy": (float((ratio > 0).sum()), pairs),
                "log_odds_ratio": (float(ratio.sum()), pairs),
                "chosen_nll": (-float(chosen.detach().sum()), pairs),
            },
        )

    def count_items(self, batch: Any) -> int:
        """Return the pairs."""
        return len(batch["place"])


def _mean_log_probs(model: Any, rows: Sequence[Any], pad_id: int) -> torch.Tensor:
    loss, _ = score_rows(model, rows, pad_id)
    return -torch.tensor(loss.sums, dtype=torch.float64) / torch.tensor(loss.weights, dtype=torch.float64)


def _log1mexp(x: torch.Tensor) -> torch.Tensor:
    """Return log(1 - exp(x)) for x < 0, without cancellation at either end (Mächler 2012)."""
    # A probability that rounds to 1 would have infinite odds.
    x = x.clamp(max=-1e-7)
    # At -log 2, where both forms are equally exact.
    return torch.where(x > -0.6931471805599453, (-torch.expm1(x)).log(), torch.log1p(-x.exp()))


def make_recipe(job: JobContext) -> Recipe:
    """Return what the method does in a run."""
    return OrpoRecipe(job)
