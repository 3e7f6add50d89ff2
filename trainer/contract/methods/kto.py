"""Kahneman-Tversky optimisation: single answers that are wanted or not, no pairs (arXiv 2402.01306)."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from trainer.contract.methods.base import Auto, TrainingMethod
from trainer.contract.methods.preference import PreferenceHyperparameters
from trainer.frozen import Frozen

Weight = Auto | Annotated[float, Field(gt=0, le=1000)]


class KtoHyperparameters(PreferenceHyperparameters):
    """`beta` is the pull towards the model that the job starts from; the weights balance the two kinds of rows."""

    learning_rate_scale: ClassVar[float] = 0.2
    desirable_weight: Weight = "auto"
    """`auto` is 1, or so much more that wanted rows weigh as much as the others if they are fewer."""
    undesirable_weight: Weight = "auto"
    """`auto` is 1, or so much more that unwanted rows weigh as much as the others if they are fewer."""


class KtoParameters(Frozen):
    """The block `kto` of the wire's `method`."""

    hyperparameters: KtoHyperparameters = Field(default_factory=KtoHyperparameters)


class KtoMethod(TrainingMethod):
    """`method: {type: "kto", kto: {hyperparameters: {…}}}`."""

    in_words: ClassVar[tuple[str, str]] = ("Kahneman-Tversky optimisation", "labelled answers")
    row_format: ClassVar[str] = "kto"
    headline: ClassVar[str | None] = "implicit_accuracy"

    type: Literal["kto"] = "kto"
    kto: KtoParameters = Field(default_factory=KtoParameters)

    @property
    def hyperparameters(self) -> KtoHyperparameters:
        """The block's hyperparameters, by a name that every method shares."""
        return self.kto.hyperparameters
