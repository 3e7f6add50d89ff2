"""The best evaluation so far: its weights, and how many evaluations passed since."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from trainer.contract.methods.base import Resolved
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
    def of(cls, step: int, measure: Measure, trained: Mapping[str, torch.Tensor]) -> Best:
        """Take note of an evaluation and of the weights that it was of."""
        weights = {name: value.detach().cpu().clone() for name, value in trained.items()}
        return cls(step, measure.value, 0, weights, measure.label)

    def beaten_by(self, measure: Measure) -> bool:
        """Return whether a measure is better than this one; equal is not."""
        return measure.value > self.value if measure.better == "higher" else measure.value < self.value

    def outlasted(self, resolved: Resolved, step: int) -> str | None:
        """Return the sentence that ends the training at `step`, None where its patience lasts."""
        patience = resolved.early_stopping_patience
        if patience is None or self.since < patience:
            return None
        return (
            f"Stopped early at step {step}: {self.label} has not been better than at step {self.step} for "
            f"{self.since} evaluations."
        )

    @torch.no_grad()
    def restore(self, trained: Mapping[str, torch.Tensor]) -> None:
        """Copy the weights back into the parameters of the same names."""
        for name, weights in self.weights.items():
            trained[name].copy_(weights)

    def save(self, folder: Path) -> None:
        """Write `best.safetensors` into a checkpoint's folder."""
        facts = {"step": self.step, "value": self.value, "since": self.since, "label": self.label}
        save_file(self.weights, folder / BEST_NAME, metadata={"burnish": json.dumps(facts)})

    @classmethod
    def load(cls, folder: Path) -> Best | None:
        """Read what `save` wrote, None where nothing was."""
        path = folder / BEST_NAME
        if not path.is_file():
            return None
        with safe_open(path, framework="pt") as file:
            facts = json.loads((file.metadata() or {})["burnish"])
            return cls(**facts, weights={name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118
