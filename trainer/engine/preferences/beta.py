"""The strength `beta` of preference methods, and measures with one value a row."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from trainer.contract.methods.base import Resolved
from trainer.contract.methods.preference import PreferenceHyperparameters
from trainer.engine.recipe import DataT_co, Recipe
from trainer.kit.statistics import Measure

AUTO_BETA = 0.1


class BetaRecipe(Recipe[DataT_co]):
    """A method with a `beta`; it stands in front of the class that reads the rows."""

    @property
    def beta(self) -> float:
        """The job's `beta`, as a number."""
        hyperparameters = self.hyperparameters
        assert isinstance(hyperparameters, PreferenceHyperparameters)
        return AUTO_BETA if hyperparameters.beta == "auto" else hyperparameters.beta

    def resolve_hyperparameters(self) -> Resolved:
        """Turn every `auto` into a number, `beta` among them."""
        resolved = super().resolve_hyperparameters()
        return resolved.model_copy(update={"settings": {**resolved.settings, "beta": self.beta}})


def measure_each_row(name: str, label: str, lines: Sequence[int], values: torch.Tensor, **more: Any) -> Measure:
    """Return a measure over rows that weigh the same, from one value a row [rows]; `more` are further fields.

    Its name says what it is: an accuracy is a rate, all else a mean.
    """
    return Measure(
        name=name,
        label=label,
        kind="rate" if name.endswith("accuracy") else "mean",
        lines=tuple(lines),
        sums=tuple(values.double().tolist()),
        weights=(1.0,) * len(lines),
        **more,
    )
