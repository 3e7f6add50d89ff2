"""Direct preference optimisation (Rafailov et al. 2023, arXiv 2305.18290), with one model in memory.

The reference is the model that the job starts from: its log-probabilities are computed once, in front of the first
step, kept in every checkpoint, and never again.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from trainer.engine.evaluate import batches_within, evaluating
from trainer.engine.head import collate
from trainer.engine.loop import JobLoop, Scored
from trainer.engine.preferences import (
    Pair,
    PreferenceRecipe,
    collate_pairs,
    sequence_log_probs,
    subset_pairs,
)
from trainer.engine.recipe import Split
from trainer.methods.base import Resolved
from trainer.methods.dpo import DpoHyperparameters
from trainer.progress import Progress
from trainer.report.model import PlotSpec
from trainer.statistics import Better, Measure

AUTO_BETA = 0.1
REFERENCE_NAME = "reference.safetensors"


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


class DpoRecipe(PreferenceRecipe):
    """Raise the preferred answer's log-ratio to the reference above the other's."""

    plots: ClassVar[tuple[PlotSpec, ...]] = (
        PlotSpec(title="implicit-reward accuracy", y=("implicit_accuracy",)),
        PlotSpec(title="implicit-reward margin", y=("margin",)),
        PlotSpec(title="log-probability drift, nats an answer", y=("chosen_drift", "rejected_drift")),
    )
    hyperparameters: DpoHyperparameters
    references: dict[str, torch.Tensor]
    """By "training" and "validation": the start model's log-probabilities [2, pairs], chosen in front."""

    def resolve(self) -> Resolved:
        """Turn every `auto` into a number, `beta` among them."""
        resolved = super().resolve()
        return resolved.model_copy(update={"settings": {**resolved.settings, "beta": self.beta}})

    @property
    def beta(self) -> float:
        """The strength of the pull towards the reference."""
        asked = self.hyperparameters.beta
        return AUTO_BETA if asked == "auto" else asked

    def load(self) -> None:
        """Load the model and compute the reference's log-probabilities, or take them from the checkpoint."""
        super().load()
        kept = self.job.workdir / "checkpoint" / REFERENCE_NAME
        if self.job.spec.resume and kept.is_file():
            self.references = load_file(kept)
            return
        self.references = {"training": self._log_probs(self.training.rows)}
        if self.validation:
            self.references["validation"] = self._log_probs(self.validation.rows)

    def make_loop(self, progress: Progress) -> DpoLoop:
        """Return the loop."""
        return DpoLoop(self, progress)

    def ratios(self, sums: torch.Tensor, sizes: torch.Tensor, split: str, place: torch.Tensor) -> torch.Tensor:
        """Return log-ratios [2, n] to the reference of answers whose log-probabilities are `sums` [2 · n].

        They are means a token where the loss wants them so, sums otherwise.
        """
        reference = self.references[split].to(sums.device)[:, place.to(sums.device)]
        ratios = sums.view(2, -1) - reference
        by_token = self.hyperparameters.length_normalised or self.hyperparameters.loss == "ipo"
        return ratios / sizes.view(2, -1) if by_token else ratios

    def losses(self, ratios: torch.Tensor) -> torch.Tensor:
        """Return the loss of each pair [n] from its log-ratios [2, n]."""
        asked = self.hyperparameters
        return dpo_loss(ratios[0], ratios[1], beta=self.beta, kind=asked.loss, label_smoothing=asked.label_smoothing)

    def measure(self, *, full: bool = True) -> tuple[Measure, ...]:
        """Measure implicit rewards β log π/π_ref; for the reference itself they are all 0, and a tie counts a half."""
        split = "validation" if self.validation else "training"
        pairs: Sequence[Pair] = self.measured.rows if full and self.validation else subset_pairs(self.measured.rows)
        place = torch.tensor([pair.place for pair in pairs])
        sums = self._log_probs(pairs)
        sizes = torch.tensor([[p.chosen.trained_tokens for p in pairs], [p.rejected.trained_tokens for p in pairs]])
        ratios = self.ratios(sums.flatten(), sizes.flatten(), split, place)
        drift = sums - self.references[split][:, place]
        margin = self.beta * (ratios[0] - ratios[1])
        lines = tuple(pair.line for pair in pairs)

        def measure(name: str, label: str, values: torch.Tensor, better: Better | None, unit: str = "") -> Measure:
            kind = "rate" if name.endswith("accuracy") else "mean"
            sums = tuple(values.double().tolist())
            weights = (1.0,) * len(lines)
            return Measure(
                name=name, label=label, unit=unit, better=better, kind=kind, lines=lines, sums=sums, weights=weights
            )

        return (
            measure("implicit_accuracy", "implicit-reward accuracy", _wins(margin), "higher"),
            measure("margin", "implicit-reward margin", margin, "higher"),
            measure("likelihood_accuracy", "preferred answer is the likelier one", _wins(sums[0] - sums[1]), "higher"),
            measure("loss", "loss", self.losses(ratios), "lower", "a pair"),
            measure("chosen_drift", "log-probability drift of preferred answers", drift[0], None, "nats"),
            measure("rejected_drift", "log-probability drift of other answers", drift[1], None, "nats"),
        )

    def _log_probs(self, pairs: Sequence[Pair]) -> torch.Tensor:
        """Return the model's log-probabilities [2, pairs] as it is now, on the CPU."""
        rows = [*(pair.chosen for pair in pairs), *(pair.rejected for pair in pairs)]
        order = sorted(range(len(rows)), key=lambda number: len(rows[number].input_ids))
        found = torch.empty(len(rows))
        with evaluating(self.model):
            for numbers in batches_within(order, rows, self.model.device.type):
                batch = collate([rows[number] for number in numbers], self.pad_id)
                batch = {name: values.to(self.model.device) for name, values in batch.items()}
                found[torch.tensor(numbers)] = sequence_log_probs(self.model, batch)[0].float().cpu()
        return found.view(2, -1)


class DpoLoop(JobLoop):
    """Every update's loss is the mean over its pairs."""

    recipe: DpoRecipe

    def __init__(self, recipe: DpoRecipe, progress: Progress) -> None:
        training: Split[Pair] = recipe.training
        super().__init__(
            recipe,
            progress,
            rows=training.rows,
            lengths=recipe.lengths(),
            collate=lambda pairs: collate_pairs(pairs, recipe.pad_id),
        )

    def loss(self, model: Any, batch: Any) -> Scored:
        """Return the pairs' losses, and how the implicit rewards stand."""
        recipe = self.recipe
        sums, sizes = sequence_log_probs(model, batch)
        ratios = recipe.ratios(sums, sizes, "training", batch["place"])
        losses = recipe.losses(ratios)
        rewards = recipe.beta * ratios.detach()
        drift = sums.detach().view(2, -1) - recipe.references["training"].to(sums.device)[:, batch["place"]]
        values = {
            "implicit_accuracy": _wins(rewards[0] - rewards[1]),
            "margin": rewards[0] - rewards[1],
            "chosen_reward": rewards[0],
            "rejected_reward": rewards[1],
            "chosen_drift": drift[0],
            "rejected_drift": drift[1],
        }
        pairs = losses.numel()
        return Scored(
            total=losses.sum(),
            tokens=int(batch["attention_mask"].sum()),
            metrics={name: (float(value.sum()), pairs) for name, value in values.items()},
        )

    def count(self, batch: Any) -> int:
        """Return the pairs."""
        return len(batch["place"])

    def write_extras(self, folder: Path) -> None:
        """Keep the reference's log-probabilities with the checkpoint."""
        super().write_extras(folder)
        save_file(self.recipe.references, folder / REFERENCE_NAME)


def _wins(difference: torch.Tensor) -> torch.Tensor:
    """Return 1 where the difference is above 0, a half where it is 0."""
    return (difference > 0).float() + 0.5 * (difference == 0).float()
