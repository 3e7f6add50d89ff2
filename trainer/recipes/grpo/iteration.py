"""GRPO's own part of an iteration: advantages within each group of answers, and a loss with the KL inside."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from trainer.contract.methods.grpo import GroupHyperparameters
from trainer.engine.onpolicy.answers import Answers
from trainer.engine.onpolicy.policy_loss import PolicyLoss
from trainer.engine.onpolicy.updates import Experience, OnPolicy, UpdateSums
from trainer.recipes.grpo.losses import group_advantages, grpo_loss, token_weights


@dataclass(frozen=True)
class GroupExperience(Experience):
    """With the reference's log-probabilities and each token's weight in the loss."""

    reference: torch.Tensor
    weights: torch.Tensor


class Grpo(OnPolicy[GroupHyperparameters, GroupExperience]):
    """GRPO on one base. Answers number n · size to (n + 1) · size - 1 are those to one prompt."""

    method: ClassVar[str] = "grpo"
    remedy: ClassVar[str] = "Lower learning_rate_multiplier or raise kl_coef"

    def make_experiences(self, answers: Answers) -> list[GroupExperience]:
        """Return each answer's advantage at all of its tokens."""
        given, mask = self.hyperparameters, answers.mask
        groups = group_advantages(self.group_rewards(answers), scale=given.scale_rewards == "group")
        # Groups are in the order of prompts, rows in that of lengths.
        advantages = groups.flatten()[list(answers.numbers)]
        weights = token_weights(mask, given.loss, given.max_new_tokens)
        spread = advantages[:, None].expand(mask.shape)
        tables = [answers.split_by_batch(table) for table in (answers.log_probs, spread, answers.reference, weights)]
        return [
            # DAPO's mean is over tokens; the others' is over answers, their weights being shares of one.
            GroupExperience(
                batch, old, advantage, len(old) if given.loss == "dapo" else len(batch.input_ids), reference, weight
            )
            for batch, old, advantage, reference, weight in zip(answers.batches, *tables, strict=True)
        ]

    def group_rewards(self, answers: Answers) -> torch.Tensor:
        """Return the rewards [prompts, answers a prompt]."""
        by_number = torch.empty_like(answers.rewards)
        by_number[list(answers.numbers)] = answers.rewards
        return by_number.view(-1, self.hyperparameters.answers_a_prompt)

    def policy_loss(self, new: torch.Tensor, one: GroupExperience) -> PolicyLoss:
        """Return the clipped surrogate with the KL to the reference."""
        given = self.hyperparameters
        return grpo_loss(
            new,
            one.log_probs,
            one.reference,
            one.advantages,
            one.weights,
            clip_range=given.clip_range,
            kl_coef=given.kl_coef,
            kl_correction=given.kl_correction,
        )

    def report_iteration(self, answers: Answers, sums: UpdateSums) -> dict[str, float]:
        """Return the iteration's means; `flat_groups` is the share of groups whose answers all have one reward."""
        groups = self.group_rewards(answers)
        return {
            **answers.mean_measures(),
            "kl_coef": self.hyperparameters.kl_coef,
            **sums.update_means(),
            "loss": sums.policy / sums.items,
            "kl_penalty": sums.penalty / sums.items,
            "group_deviation": float(groups.std(1).mean()),
            "flat_groups": float((groups == groups[:, :1]).all(1).float().mean()),
        }
