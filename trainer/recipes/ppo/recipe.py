"""PPO as a job: policy, value, reward and reference on one base."""

from __future__ import annotations

from typing import ClassVar

from trainer.contract.methods.ppo import PpoHyperparameters
from trainer.engine.onpolicy.reward_source import RewardedRecipe
from trainer.engine.onpolicy.rollout import RolloutSampling
from trainer.engine.onpolicy.scorers import Scorer
from trainer.engine.onpolicy.updates import UpdateSettings
from trainer.recipes.ppo.iteration import Ppo


class PpoRecipe(RewardedRecipe):
    """Learn from advantages over a value function."""

    critic: ClassVar[bool] = True
    hyperparameters: PpoHyperparameters

    def make_algorithm(self, sampling: RolloutSampling, score: Scorer, settings: UpdateSettings) -> Ppo:
        """Return PPO."""
        return Ppo(self.roles, sampling, score, self.hyperparameters, settings)
