"""Supervised fine-tuning: imitate the assistant's answers token by token (cross-entropy on their tokens only)."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from trainer.contract.methods.base import TrainingMethod
from trainer.contract.methods.conversations import AnswerHyperparameters
from trainer.frozen import Frozen


class SupervisedHyperparameters(AnswerHyperparameters):
    """Nothing beyond the common ones."""


class SupervisedParameters(Frozen):
    """The block `supervised` of the wire's `method`."""

    hyperparameters: SupervisedHyperparameters = Field(default_factory=SupervisedHyperparameters)


class SupervisedMethod(TrainingMethod):
    """`method: {type: "supervised", supervised: {hyperparameters: {…}}}`."""

    in_words: ClassVar[tuple[str, str]] = (
        "supervised fine-tuning",
        "conversations; only the assistant's tokens were in the loss",
    )
    row_format: ClassVar[str] = "supervised"

    type: Literal["supervised"] = "supervised"
    supervised: SupervisedParameters = Field(default_factory=SupervisedParameters)

    @property
    def hyperparameters(self) -> SupervisedHyperparameters:
        """The block's hyperparameters, by a name that every method shares."""
        return self.supervised.hyperparameters
