"""Kahneman-Tversky optimisation (Ethayarajh et al. 2024, arXiv 2402.01306), with one model in memory.

An answer is worth its log-ratio to the model at the start, seen from a baseline z0 ≈ KL(π ‖ π_ref). As in TRL, z0 is
estimated with answers behind prompts that they do not belong to, is at least 0, and has no gradient. Here it is over
all rows of an update, so that accumulation does not change it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch

from trainer.contract.methods.base import Resolved
from trainer.contract.methods.kto import KtoHyperparameters
from trainer.engine.loop.training_loop import ScoredBatch
from trainer.engine.preferences.beta import BetaRecipe, measure_each_row
from trainer.engine.preferences.pairs import sequence_log_probs
from trainer.engine.preferences.references import ReferencedRecipe, ReferenceLoop, answer_log_probs, win_scores
from trainer.kit.plot_spec import PlotSpec
from trainer.kit.progress import TrainingProgress
from trainer.kit.statistics import Measure
from trainer.recipes.kto.labelled import LabelledAnswer, LabelledData, collate_answers


def kto_loss(
    ratios: torch.Tensor, wanted: torch.Tensor, baseline: float, *, beta: float, weights: tuple[float, float]
) -> torch.Tensor:
    """Return the loss of each answer [n] from its log-ratio log π/π_ref [n], in nats: the paper's λ - v(x, y).

    That is λ·(1 - σ(β(r - z0))) for wanted answers and λ·(1 - σ(β(z0 - r))) for others; `weights` are their two λ.
    """
    above = torch.where(wanted, ratios - baseline, baseline - ratios)
    scale = torch.where(wanted, weights[0], weights[1])
    return scale * torch.sigmoid(-beta * above)


class KtoRecipe(BetaRecipe[LabelledData], ReferencedRecipe[LabelledData]):
    """Raise the log-ratio of wanted answers above the baseline, and put that of others below it.

    `references` [2, rows] have the rows' own answers in front, the mismatched ones behind.
    """

    pipeline = LabelledData
    plots: ClassVar[tuple[PlotSpec, ...]] = (
        PlotSpec(title="right sign of the implicit reward", y=("implicit_accuracy",)),
        PlotSpec(title="implicit reward", y=("desirable_reward", "undesirable_reward")),
        PlotSpec(title="baseline z0, nats an answer", y=("baseline",)),
    )
    hyperparameters: KtoHyperparameters

    @property
    def weights(self) -> tuple[float, float]:
        """The weights of wanted and of other rows; `auto` makes both kinds weigh the same (section 4 of the paper)."""
        asked = self.hyperparameters
        wanted = sum(row.label for row in self.data.training.rows)
        others = len(self.data.training.rows) - wanted
        return (
            max(1.0, others / max(1, wanted)) if asked.desirable_weight == "auto" else asked.desirable_weight,
            max(1.0, wanted / max(1, others)) if asked.undesirable_weight == "auto" else asked.undesirable_weight,
        )

    def resolve_hyperparameters(self) -> Resolved:
        """Turn every `auto` into a number, the weights among them."""
        resolved = super().resolve_hyperparameters()
        desirable, undesirable = self.weights
        own = {"desirable_weight": desirable, "undesirable_weight": undesirable}
        return resolved.model_copy(update={"settings": {**resolved.settings, **own}})

    def make_loop(self, progress: TrainingProgress) -> KtoLoop:
        """Return the loop."""
        return KtoLoop(self, progress)

    def log_probs(self, rows: Sequence[LabelledAnswer]) -> torch.Tensor:
        """Return the log-probabilities [2, rows] of the rows' own and of the mismatched answers."""
        both = [*(row.answer for row in rows), *(row.mismatched for row in rows)]
        return answer_log_probs(self.model, both, self.data.pad_id).view(2, -1)

    def estimate_baseline(self, places: Sequence[int]) -> float:
        """Return z0 in nats from these training rows: the mean log-ratio of their mismatched answers, at least 0."""
        rows = [self.data.training.rows[place].mismatched for place in places]
        ratios = answer_log_probs(self.model, rows, self.data.pad_id) - self.references["training"][1, list(places)]
        return max(0.0, float(ratios.mean()))

    def compute_losses(self, ratios: torch.Tensor, wanted: torch.Tensor, baseline: float) -> torch.Tensor:
        """Return the loss of each answer [n]."""
        return kto_loss(ratios, wanted, baseline, beta=self.beta, weights=self.weights)

    def measure_model(self, *, full: bool = True) -> tuple[Measure, ...]:
        """Measure implicit rewards β log π/π_ref; for the reference itself they are all 0, and a tie counts a half."""
        rows = self.data.rows_to_measure(full=full)
        references = self.references[self.data.measured_on]
        ratios = (self.log_probs(rows) - references[:, [row.place for row in rows]]).double()
        wanted = torch.tensor([row.label for row in rows])
        losses = self.compute_losses(ratios[0], wanted, max(0.0, float(ratios[1].mean())))
        return _labelled_measures([row.line for row in rows], wanted, ratios[0], losses, self.beta)


class KtoLoop(ReferenceLoop):
    """Every update's loss is the mean over its rows; `baseline` is z0 of the update under way."""

    recipe: KtoRecipe
    baseline: float = 0.0

    def __init__(self, recipe: KtoRecipe, progress: TrainingProgress) -> None:
        super().__init__(
            recipe,
            progress,
            rows=recipe.data.training.rows,
            lengths=recipe.data.row_lengths(),
            collate=lambda rows: collate_answers(rows, recipe.data.pad_id),
        )

    def get_batch_samples(self, epoch_iterator: Any, num_batches: int, device: torch.device) -> Any:
        """Return an update's micro-batches, as the library does, and estimate its baseline."""
        batches, items = super().get_batch_samples(epoch_iterator, num_batches, device)
        if batches:
            # The only place where all rows of an update are known at once.
            self.baseline = self.recipe.estimate_baseline(
                [place for batch in batches for place in batch["place"].tolist()]
            )
        return batches, items

    def score_batch(self, model: Any, batch: Any) -> ScoredBatch:
        """Return the rows' losses, and how the implicit rewards stand."""
        recipe, wanted = self.recipe, batch["wanted"]
        sums, _ = sequence_log_probs(model, batch)
        ratios = sums - recipe.references["training"].to(sums.device)[0, batch["place"]]
        rewards, rows = recipe.beta * ratios.detach(), len(wanted)
        return ScoredBatch(
            total=recipe.compute_losses(ratios, wanted, self.baseline).sum(),
            tokens=int(batch["attention_mask"].sum()),
            metrics={
                "implicit_accuracy": (float(win_scores(torch.where(wanted, rewards, -rewards)).sum()), rows),
                "desirable_reward": (float(rewards[wanted].sum()), int(wanted.sum())),
                "undesirable_reward": (float(rewards[~wanted].sum()), int((~wanted).sum())),
                "baseline": (self.baseline * rows, rows),
            },
        )

    def count_items(self, batch: Any) -> int:
        """Return the rows."""
        return len(batch["place"])


def _labelled_measures(
    lines: Sequence[int], wanted: torch.Tensor, ratios: torch.Tensor, losses: torch.Tensor, beta: float
) -> tuple[Measure, ...]:
    def measure(name: str, label: str, values: torch.Tensor, rows: torch.Tensor | None = None, **more: Any) -> Measure:
        if rows is None:
            return measure_each_row(name, label, lines, values, **more)
        return measure_each_row(name, label, torch.tensor(lines)[rows].tolist(), values[rows], **more)

    rewards = beta * ratios
    right = win_scores(torch.where(wanted, rewards, -rewards))
    found = [measure("implicit_accuracy", "right sign of the implicit reward", right, better="higher")]
    if bool(wanted.any()) and not bool(wanted.all()):
        values = _margin_values(rewards, wanted)
        found.append(measure("margin", "implicit reward of wanted above other answers", values, better="higher"))
    found.append(measure("loss", "loss", losses, unit="an answer", better="lower"))
    for name, said, rows in (("desirable", "wanted", wanted), ("undesirable", "unwanted", ~wanted)):
        if bool(rows.any()):
            found.append(measure(f"{name}_reward", f"implicit reward of {said} answers", rewards, rows))
            drift = f"log-probability drift of {said} answers"
            found.append(measure(f"{name}_drift", drift, ratios, rows, unit="nats"))
    return tuple(found)


def _margin_values(rewards: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """Return a value a row [n] whose mean is mean(wanted) - mean(others), and whose variance is that difference's.

    They are the difference plus each row's influence on it: its distance from its own kind's mean, over the kind's
    share of the rows, negative for the others.
    """
    better, worse = rewards[wanted].mean(), rewards[~wanted].mean()
    share = float(wanted.double().mean())
    influence = torch.where(wanted, (rewards - better) / share, -(rewards - worse) / (1 - share))
    return better - worse + influence
