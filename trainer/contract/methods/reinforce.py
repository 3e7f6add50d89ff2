"""REINFORCE with a baseline: the policy gradient itself (Williams 1992, Machine Learning 8, 229-256)."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from trainer.contract.methods.base import TrainingMethod
from trainer.contract.methods.onpolicy import RewardedHyperparameters
from trainer.frozen import Frozen


class ReinforceHyperparameters(RewardedHyperparameters):
    """One iteration samples `rollout_prompts` answers and learns from each of them once."""

    kl_coef: float = Field(default=0.05, ge=0, le=100)
    """What a nat of KL to the model at the start costs, in the reward."""

    @property
    def passes(self) -> int:
        """One: the gradient is that of the policy that drew the answers."""
        return 1


class ReinforceParameters(Frozen):
    """The block `reinforce` of the wire's `method`."""

    hyperparameters: ReinforceHyperparameters


class ReinforceMethod(TrainingMethod):
    """`method: {type: "reinforce", reinforce: {hyperparameters: {…}}}`."""

    in_words: ClassVar[tuple[str, str]] = ("REINFORCE with a baseline against a reward", "prompts")
    row_format: ClassVar[str] = "ppo"
    headline: ClassVar[str | None] = "reward"

    type: Literal["reinforce"] = "reinforce"
    reinforce: ReinforceParameters

    @property
    def hyperparameters(self) -> ReinforceHyperparameters:
        """The block's hyperparameters, by a name that every method shares."""
        return self.reinforce.hyperparameters
