"""REINFORCE as a job: an answer's advantage is its reward, less the mean reward of the iteration's other answers."""

from __future__ import annotations

from typing import ClassVar

import torch

from trainer.contract.methods.reinforce import ReinforceHyperparameters
from trainer.engine.onpolicy.answers import Answers
from trainer.engine.onpolicy.policy_loss import PolicyLoss
from trainer.engine.onpolicy.reward_source import RewardedRecipe
from trainer.engine.onpolicy.rollout import Sampling
from trainer.engine.onpolicy.scorers import Scorer
from trainer.engine.onpolicy.updates import Experience, OnPolicy, Sums, UpdateSettings
from trainer.engine.recipe import JobContext


def advantages_over_others(rewards: torch.Tensor) -> torch.Tensor:
    """Return each reward less the mean of the others [rows] (Kool et al. 2019): a baseline that adds no bias."""
    others = max(1, len(rewards) - 1)
    return rewards - (rewards.sum() - rewards) / others


class Reinforce(OnPolicy[ReinforceHyperparameters, Experience]):
    """REINFORCE on one base; the loss of a minibatch is a mean over its answers."""

    method: ClassVar[str] = "reinforce"
    remedy: ClassVar[str] = "Lower learning_rate_multiplier or raise kl_coef"

    def experiences(self, answers: Answers) -> list[Experience]:
        """Return each answer's advantage at all of its tokens."""
        paid = answers.rewards - self.hyperparameters.kl_coef * answers.kl
        spread = advantages_over_others(paid)[:, None].expand(answers.mask.shape)
        tables = [answers.split(table) for table in (answers.log_probs, spread)]
        return [
            Experience(batch, old, advantage, len(batch.input_ids))
            for batch, old, advantage in zip(answers.batches, *tables, strict=True)
        ]

    def policy_loss(self, new: torch.Tensor, one: Experience) -> PolicyLoss:
        """Return -Σ A · log π; its k3 estimate of the KL to the sampling policy is for the report."""
        log_ratio = (new - one.log_probs).detach()
        kl = (log_ratio.exp() - 1 - log_ratio).sum()
        return PolicyLoss(-(one.advantages * new).sum(), torch.zeros(()), kl)

    def report(self, answers: Answers, sums: Sums) -> dict[str, float]:
        """Return the iteration's means."""
        facts = {**answers.facts(), "kl_coef": self.hyperparameters.kl_coef, **sums.facts()}
        return {**facts, "loss": facts["policy_loss"]}


class ReinforceRecipe(RewardedRecipe):
    """Learn from rewards without a value function."""

    critic: ClassVar[bool] = False
    hyperparameters: ReinforceHyperparameters

    def make_algorithm(self, sampling: Sampling, score: Scorer, settings: UpdateSettings) -> Reinforce:
        """Return REINFORCE."""
        return Reinforce(self.roles, sampling, score, self.hyperparameters, settings)


def make_recipe(job: JobContext) -> ReinforceRecipe:
    """Return the method's recipe for a job."""
    return ReinforceRecipe(job)
