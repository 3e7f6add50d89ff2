"""PPO as a job: policy, value, reward and reference on one base."""

from __future__ import annotations

from typing import ClassVar

from trainer.engine.ppo.iteration import Ppo
from trainer.engine.ppo.rewarded import RewardedRecipe
from trainer.engine.ppo.rollout import Sampling
from trainer.engine.ppo.scorers import Scorer
from trainer.engine.ppo.updates import UpdateSettings
from trainer.methods.ppo import PpoHyperparameters


class PpoRecipe(RewardedRecipe):
    """Learn from advantages over a value function."""

    critic: ClassVar[bool] = True
    hyperparameters: PpoHyperparameters

    def make_algorithm(self, sampling: Sampling, score: Scorer, settings: UpdateSettings) -> Ppo:
        """Return PPO."""
        return Ppo(self.roles, sampling, score, self.hyperparameters, settings)
