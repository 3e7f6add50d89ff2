"""Direct preference optimisation (Rafailov et al. 2023, arXiv 2305.18290), with one model in memory.

The reference is the model that the job starts from: its log-probabilities are computed once, in front of the first
step, kept in every checkpoint, and never again.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, ClassVar, Literal

import torch
from torch import nn

from trainer.contract.methods.dpo import DpoHyperparameters
from trainer.engine.data.splits import Split
from trainer.engine.loop.training_loop import ScoredBatch
from trainer.engine.preferences.beta import BetaRecipe, measure_each_row
from trainer.engine.preferences.pairs import Pair, PairData, PreferenceRecipe, collate_pairs, sequence_log_probs
from trainer.engine.preferences.references import ReferencedRecipe, ReferenceLoop, answer_log_probs, win_scores
from trainer.engine.recipe import Recipe
from trainer.kit.job_context import JobContext
from trainer.kit.plot_spec import PlotSpec
from trainer.kit.progress import TrainingProgress
from trainer.kit.statistics import Measure


def dpo_loss(
    chosen: torch.Tensor,
    rejected: torch.Tensor,
    *,
    beta: float,
    kind: Literal["sigmoid", "ipo", "hinge", "robust"] = "sigmoid",
    label_smoothing: float = 0.0,
) -> torch.Tensor:
    """Return the loss of each pair [n] from log-ratios log π/π_ref of its answers [n], in nats.

    With h = chosen - rejected: `sigmoid` is -(1 - ε) log σ(βh) - ε log σ(-βh) (equation 7 of the paper; ε > 0 is
    conservative DPO, Mitchell 2023); `robust` divides the unbiased form by 1 - 2ε (Chowdhury et al. 2024, arXiv
    2403.00409); `hinge` is max(0, 1 - βh) (SLiC-HF, Zhao et al. 2023, arXiv 2305.10425); `ipo` is (h - 1 / 2β)²
    (Azar et al. 2023, arXiv 2310.12036), whose log-ratios are means a token.
    """
    h = chosen - rejected
    match kind:
        case "sigmoid":
            right, wrong = nn.functional.logsigmoid(beta * h), nn.functional.logsigmoid(-beta * h)
            return -(1 - label_smoothing) * right - label_smoothing * wrong
        case "robust":
            right, wrong = nn.functional.logsigmoid(beta * h), nn.functional.logsigmoid(-beta * h)
            return (-(1 - label_smoothing) * right + label_smoothing * wrong) / (1 - 2 * label_smoothing)
        case "hinge":
            return torch.relu(1 - beta * h)
        case "ipo":
            return (h - 1 / (2 * beta)) ** 2


class DpoRecipe(BetaRecipe[PairData], ReferencedRecipe[PairData], PreferenceRecipe):
    """Raise the preferred answer's log-ratio to the reference above the other's.

    `references` [2, pairs] have the preferred answers in front.
    """

    plots: ClassVar[tuple[PlotSpec, ...]] = (
        PlotSpec(title="implicit-reward accuracy", y=("implicit_accuracy",)),
        PlotSpec(title="implicit-reward margin", y=("margin",)),
        PlotSpec(title="log-probability drift, nats an answer", y=("chosen_drift", "rejected_drift")),
    )
    hyperparameters: DpoHyperparameters

    def make_loop(self, progress: TrainingProgress) -> DpoLoop:
        """Return the loop."""
        return DpoLoop(self, progress)

    def log_ratios(self, sums: torch.Tensor, sizes: torch.Tensor, split: str, place: torch.Tensor) -> torch.Tensor:
        """Return log-ratios [2, n] to the reference of answers whose log-probabilities are `sums` [2 · n].

        They are means a token if the loss wants them so, sums otherwise.
        """
        reference = self.references[split].to(sums.device)[:, place.to(sums.device)]
        ratios = sums.view(2, -1) - reference
        by_token = self.hyperparameters.length_normalised or self.hyperparameters.loss == "ipo"
        return ratios / sizes.view(2, -1) if by_token else ratios

    def compute_losses(self, ratios: torch.Tensor) -> torch.Tensor:
        """Return the loss of each pair [n] from its log-ratios [2, n]."""
        asked = self.hyperparameters
        return dpo_loss(ratios[0], ratios[1], beta=self.beta, kind=asked.loss, label_smoothing=asked.label_smoothing)

    def measure_model(self, *, full: bool = True) -> tuple[Measure, ...]:
        """Measure implicit rewards β log π/π_ref; for the reference itself they are all 0, and a tie counts a half."""
        split = self.data.measured_on
        pairs = self.data.rows_to_measure(full=full)
        place = torch.tensor([pair.place for pair in pairs])
        sums = self.log_probs(pairs)
        sizes = torch.tensor([[p.chosen.trained_tokens for p in pairs], [p.rejected.trained_tokens for p in pairs]])
        ratios = self.log_ratios(sums.flatten(), sizes.flatten(), split, place)
        drift = sums - self.references[split][:, place]
        margin = self.beta * (ratios[0] - ratios[1])
        likelier = win_scores(sums[0] - sums[1])
        measure = partial(measure_each_row, lines=[pair.line for pair in pairs])
        return (
            measure("implicit_accuracy", "implicit-reward accuracy", values=win_scores(margin), better="higher"),
            measure("margin", "implicit-reward margin", values=margin, better="higher"),
            measure("likelihood_accuracy", "preferred answer is the likelier one", values=likelier, better="higher"),
            measure("loss", "loss", values=self.compute_losses(ratios), better="lower", unit="a pair"),
            measure("chosen_drift", "log-probability drift of preferred answers", values=drift[0], unit="nats"),
            measure("rejected_drift", "log-probability drift of other answers", values=drift[1], unit="nats"),
        )

    def log_probs(self, rows: Sequence[Pair]) -> torch.Tensor:
        """Return the log-probabilities [2, pairs] of both answers."""
        answers = [*(pair.chosen for pair in rows), *(pair.rejected for pair in rows)]
        return answer_log_probs(self.model, answers, self.data.pad_id).view(2, -1)


class DpoLoop(ReferenceLoop):
    """Every update's loss is the mean over its pairs."""

    recipe: DpoRecipe

    def __init__(self, recipe: DpoRecipe, progress: TrainingProgress) -> None:
        training: Split[Pair] = recipe.data.training
        super().__init__(
            recipe,
            progress,
            rows=training.rows,
            lengths=recipe.data.row_lengths(),
            collate=lambda pairs: collate_pairs(pairs, recipe.data.pad_id),
        )

    def score_batch(self, model: Any, batch: Any) -> ScoredBatch:
        """Return the pairs' losses, and how the implicit rewards stand."""
        recipe = self.recipe
        sums, sizes = sequence_log_probs(model, batch)
        ratios = recipe.log_ratios(sums, sizes, "training", batch["place"])
        losses = recipe.compute_losses(ratios)
        rewards = recipe.beta * ratios.detach()
        drift = sums.detach().view(2, -1) - recipe.references["training"].to(sums.device)[:, batch["place"]]
        values = {
            "implicit_accuracy": win_scores(rewards[0] - rewards[1]),
            "margin": rewards[0] - rewards[1],
            "chosen_reward": rewards[0],
            "rejected_reward": rewards[1],
            "chosen_drift": drift[0],
            "rejected_drift": drift[1],
        }
        pairs = losses.numel()
        return ScoredBatch(
            total=losses.sum(),
            tokens=int(batch["attention_mask"].sum()),
            metrics={name: (float(value.sum()), pairs) for name, value in values.items()},
        )

    def count_items(self, batch: Any) -> int:
        """Return the pairs."""
        return len(batch["place"])


def make_recipe(job: JobContext) -> Recipe:
    """Return what the method does in a run."""
    return DpoRecipe(job)
