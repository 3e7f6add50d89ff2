"""Direct preference optimisation (Rafailov et al. 2023, arXiv 2305.18290)."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from trainer.contract.methods.base import TrainingMethod
from trainer.contract.methods.preference import PreferenceHyperparameters
from trainer.frozen import Frozen


class DpoHyperparameters(PreferenceHyperparameters):
    """`beta` is the strength of the pull towards the model that the job starts from."""

    learning_rate_scale: ClassVar[float] = 0.2
    loss: Literal["sigmoid", "ipo", "hinge", "robust"] = "sigmoid"
    label_smoothing: float = Field(default=0.0, ge=0, lt=0.5)
    length_normalised: bool = False

    def find_ineffective(self, *, has_validation: bool) -> dict[str, str]:
        """Name the options of other losses too."""
        ineffective = super().find_ineffective(has_validation=has_validation)
        if self.loss in ("ipo", "hinge"):
            ineffective |= self.given_options(["label_smoothing"], f"the loss {self.loss} does not smooth labels")
        if self.loss == "ipo":
            ineffective |= self.given_options(["length_normalised"], "the loss ipo takes means a token in any case")
        return ineffective


class DpoParameters(Frozen):
    """The block `dpo` of the wire's `method`."""

    hyperparameters: DpoHyperparameters = Field(default_factory=DpoHyperparameters)


class DpoMethod(TrainingMethod):
    """`method: {type: "dpo", dpo: {hyperparameters: {…}}}`."""

    in_words: ClassVar[tuple[str, str]] = ("direct preference optimisation", "preferences")
    row_format: ClassVar[str] = "dpo"
    headline: ClassVar[str | None] = "implicit_accuracy"

    type: Literal["dpo"] = "dpo"
    dpo: DpoParameters = Field(default_factory=DpoParameters)

    @property
    def hyperparameters(self) -> DpoHyperparameters:
        """The block's hyperparameters, by a name that every method shares."""
        return self.dpo.hyperparameters
