"""What the hyperparameters of preference optimisation share."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from trainer.contract.methods.base import Auto
from trainer.contract.methods.conversations import AnswerHyperparameters


class PreferenceHyperparameters(AnswerHyperparameters):
    """`beta` is what the method's own paper calls the strength of its preference term."""

    beta: Auto | Annotated[float, Field(gt=0, le=2)] = "auto"
    """`auto` is 0.1."""
