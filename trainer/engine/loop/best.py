"""The best evaluation so far, its weights, and the end of a training that gets no better."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from trainer.contract.methods.base import Resolved
from trainer.engine.recipe import Recipe
from trainer.kit.statistics import Measure

BEST_NAME = "best.safetensors"


@dataclass
class Best:
    """The weights of the best headline measure, on the CPU; `since` counts the evaluations that were no better."""

    step: int
    value: float
    since: int
    weights: dict[str, torch.Tensor]
    label: str = ""

    @classmethod
    def from_evaluation(cls, step: int, measure: Measure, trained: Mapping[str, torch.Tensor]) -> Best:
        """Record an evaluation and the weights that it was of."""
        # Cloned on the CPU too, where `cpu` gives the parameter itself, which the next step changes.
        weights = {name: value.detach().cpu().clone() for name, value in trained.items()}
        return cls(step, measure.value, 0, weights, measure.label)

    def beaten_by(self, measure: Measure) -> bool:
        """Return whether a measure is better than this one; equal is not."""
        return measure.value > self.value if measure.better == "higher" else measure.value < self.value

    def early_stop_sentence(self, resolved: Resolved, step: int) -> str | None:
        """Return the sentence that ends the training at `step`, None if its patience lasts."""
        patience = resolved.early_stopping_patience
        if patience is None or self.since < patience:
            return None
        return (
            f"Stopped early at step {step}: {self.label} has not been better than at step {self.step} for "
            f"{self.since} evaluations."
        )

    @torch.no_grad()
    def restore_weights(self, trained: Mapping[str, torch.Tensor]) -> None:
        """Copy the weights back into the parameters of the same names."""
        for name, weights in self.weights.items():
            trained[name].copy_(weights)

    def save(self, folder: Path) -> None:
        """Write `best.safetensors` into a checkpoint's folder."""
        # In one file with the weights: a checkpoint cannot have the one without the other.
        facts = {"step": self.step, "value": self.value, "since": self.since, "label": self.label}
        save_file(self.weights, folder / BEST_NAME, metadata={"burnish": json.dumps(facts)})

    @classmethod
    def load(cls, folder: Path) -> Best | None:
        """Read what `save` wrote, None if nothing was."""
        path = folder / BEST_NAME
        if not path.is_file():
            return None
        with safe_open(path, framework="pt") as file:
            facts = json.loads((file.metadata() or {})["burnish"])
            return cls(**facts, weights={name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118


class BestKeeper:
    """Keeps the weights of the best evaluation, and ends a training whose evaluations have been no better for too long.

    `trained` returns the parameters that are trained, by name.
    """

    def __init__(self, recipe: Recipe, trained: Callable[[], Mapping[str, torch.Tensor]]) -> None:
        self._recipe = recipe
        self._trained = trained
        self._best: Best | None = None

    @property
    def compares_evaluations(self) -> bool:
        """Whether evaluations are compared, so that each has to be of all rows."""
        resolved = self._recipe.resolved
        return resolved.result == "best" or resolved.early_stopping_patience is not None

    def compare_evaluation(self, step: int, headline: Measure) -> bool:
        """Record an evaluation if evaluations are compared; return whether the training is to end."""
        if not self.compares_evaluations:
            return False
        if self._best is None or self._best.beaten_by(headline):
            self._best = Best.from_evaluation(step, headline, self._trained())
            return False
        self._best.since += 1
        return self.ended_early(step)

    def ended_early(self, step: int) -> bool:
        """Return whether too many evaluations were no better, and warn the owner if so."""
        sentence = self._best and self._best.early_stop_sentence(self._recipe.resolved, step)
        if sentence:
            self._recipe.job.warn(sentence)
        return bool(sentence)

    def restore_best(self, step: int) -> bool:
        """Put the best weights back if the job asks for them; return whether they are not those of `step`.

        A run that was asked to stop keeps its weights, with which it is resumed.
        """
        best, job = self._best, self._recipe.job
        if best is None or self._recipe.resolved.result != "best" or job.stop.raised:
            return False
        best.restore_weights(self._trained())
        if best.step == step:
            return False
        job.warn(f"The result has the weights of step {best.step}, the best evaluation.")
        return True

    def save(self, folder: Path) -> None:
        """Write the best evaluation, if there is one, into a checkpoint's folder."""
        if self._best is not None:
            self._best.save(folder)

    def load(self, folder: Path) -> None:
        """Restore what `save` wrote."""
        self._best = Best.load(folder)
