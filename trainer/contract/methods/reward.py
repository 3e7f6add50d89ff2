"""Reward modelling: a score for an answer, learnt from rankings (Ouyang et al. 2022, arXiv 2203.02155)."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from trainer.contract.methods.base import Kinds, TrainingMethod
from trainer.contract.methods.conversations import ConversationHyperparameters
from trainer.frozen import Frozen


class RewardHyperparameters(ConversationHyperparameters):
    """The pairwise loss over all pairs of a ranking."""

    learning_rate_scale: ClassVar[float] = 0.5
    margin: bool = False
    """Ask for the difference of the responses' own scores as a margin (Touvron et al. 2023, arXiv 2307.09288)."""
    centering: float = Field(default=0.0, ge=0, le=1)
    """The coefficient that pulls the scores of a pair towards a sum of zero (Eisenstein et al. 2023)."""

    @property
    def result_kind(self) -> Kinds:
        """An adapter with a score head."""
        return "reward"


class RewardParameters(Frozen):
    """The block `reward` of the wire's `method`."""

    hyperparameters: RewardHyperparameters = Field(default_factory=RewardHyperparameters)


class RewardMethod(TrainingMethod):
    """`method: {type: "reward", reward: {hyperparameters: {…}}}`."""

    in_words: ClassVar[tuple[str, str]] = ("reward modelling", "rankings; it gives an answer a score")
    row_format: ClassVar[str] = "reward"
    headline: ClassVar[str | None] = "pair_accuracy"

    type: Literal["reward"] = "reward"
    reward: RewardParameters = Field(default_factory=RewardParameters)

    @property
    def hyperparameters(self) -> RewardHyperparameters:
        """The block's hyperparameters, by a name that every method shares."""
        return self.reward.hyperparameters
