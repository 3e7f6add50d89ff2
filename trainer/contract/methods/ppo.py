"""Proximal policy optimisation against a reward, with a KL leash to the model at the start (arXiv 2203.02155)."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from trainer.contract.methods.base import TrainingMethod
from trainer.contract.methods.onpolicy import ModelReward, RewardedHyperparameters
from trainer.frozen import Frozen

__all__ = ["ModelReward", "PpoHyperparameters", "PpoMethod", "PpoParameters"]


class PpoHyperparameters(RewardedHyperparameters):
    """One iteration samples `rollout_prompts` answers and takes `ppo_epochs` · `minibatches` optimizer steps."""

    kl_coef: float = Field(default=0.05, gt=0, le=100)
    kl_target: Annotated[float, Field(gt=0, le=1000)] | None = None
    """Adapt `kl_coef` towards this KL a response in nats (Ziegler et al. 2019, arXiv 1909.08593)."""
    value_clip_range: Annotated[float, Field(gt=0, le=10000)] | None = 0.2
    """How far an iteration may move a value from what it was at sampling; null for no limit."""
    value_coef: float = Field(default=0.1, gt=0, le=100)
    gamma: float = Field(default=1.0, gt=0, le=1)
    lam: float = Field(default=0.95, ge=0, le=1)
    ppo_epochs: int = Field(default=4, ge=1, le=64)
    whiten_rewards: bool = False
    whiten_advantages: bool = True

    @property
    def passes(self) -> int:
        """The passes over an iteration's answers."""
        return self.ppo_epochs


class PpoParameters(Frozen):
    """The block `ppo` of the wire's `method`."""

    hyperparameters: PpoHyperparameters


class PpoMethod(TrainingMethod):
    """`method: {type: "ppo", ppo: {hyperparameters: {…}}}`."""

    in_words: ClassVar[tuple[str, str]] = ("proximal policy optimisation against a reward", "prompts")
    row_format: ClassVar[str] = "ppo"
    headline: ClassVar[str | None] = "reward"

    type: Literal["ppo"] = "ppo"
    ppo: PpoParameters

    @property
    def hyperparameters(self) -> PpoHyperparameters:
        """The block's hyperparameters, by a name that every method shares."""
        return self.ppo.hyperparameters
