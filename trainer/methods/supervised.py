"""Supervised fine-tuning: imitate the assistant's answers token by token (cross-entropy on their tokens only)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from trainer.methods.base import CommonHyperparameters, Frozen

if TYPE_CHECKING:
    from trainer.engine.sft import SupervisedTrainer, TrainingParts


class SupervisedHyperparameters(CommonHyperparameters):
    """Nothing beyond the common ones."""


class SupervisedParameters(Frozen):
    """The block `supervised` of the wire's `method`."""

    hyperparameters: SupervisedHyperparameters = SupervisedHyperparameters()


class SupervisedMethod(Frozen):
    """`method: {type: "supervised", supervised: {hyperparameters: {…}}}`."""

    type: Literal["supervised"] = "supervised"
    supervised: SupervisedParameters = Field(default_factory=SupervisedParameters)

    @property
    def hyperparameters(self) -> SupervisedHyperparameters:
        """The block's hyperparameters, by a name that every method shares."""
        return self.supervised.hyperparameters

    def build(self, parts: TrainingParts) -> SupervisedTrainer:
        """Return the trainer of this method, ready for `train()`. Loads torch."""
        from trainer.engine.sft import SupervisedTrainer

        return SupervisedTrainer(parts)
