"""Odds-ratio preference optimisation: imitation and preference in one loss, without a reference (arXiv 2403.07691)."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from trainer.contract.methods.base import TrainingMethod
from trainer.contract.methods.preference import PreferenceHyperparameters
from trainer.frozen import Frozen


class OrpoHyperparameters(PreferenceHyperparameters):
    """`beta` is the weight of the odds ratio beside the imitation of the preferred answer (λ in the paper)."""

    learning_rate_scale: ClassVar[float] = 0.5


class OrpoParameters(Frozen):
    """The block `orpo` of the wire's `method`."""

    hyperparameters: OrpoHyperparameters = Field(default_factory=OrpoHyperparameters)


class OrpoMethod(TrainingMethod):
    """`method: {type: "orpo", orpo: {hyperparameters: {…}}}`."""

    in_words: ClassVar[tuple[str, str]] = ("odds-ratio preference optimisation", "preferences")
    row_format: ClassVar[str] = "orpo"
    headline: ClassVar[str | None] = "odds_accuracy"

    type: Literal["orpo"] = "orpo"
    orpo: OrpoParameters = Field(default_factory=OrpoParameters)

    @property
    def hyperparameters(self) -> OrpoHyperparameters:
        """The block's hyperparameters, by a name that every method shares."""
        return self.orpo.hyperparameters
