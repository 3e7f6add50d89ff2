"""PPO's own part of an iteration: advantages from a value function, and the updates of both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch

from trainer.contract.methods.ppo import PpoHyperparameters
from trainer.engine.onpolicy.answers import Answers, fill_mask
from trainer.engine.onpolicy.forward import response_values
from trainer.engine.onpolicy.policy_loss import PolicyLoss, policy_loss
from trainer.engine.onpolicy.roles import Roles
from trainer.engine.onpolicy.rollout import RolloutSampling
from trainer.engine.onpolicy.scorers import Scorer
from trainer.engine.onpolicy.updates import Experience, OnPolicy, UpdateSettings, UpdateSums
from trainer.recipes.ppo.losses import KlController, gae, token_rewards, value_loss, whiten


@dataclass(frozen=True)
class ValuedExperience(Experience):
    """With the values at sampling and the returns that they are to learn."""

    values: torch.Tensor
    returns: torch.Tensor


class Ppo(OnPolicy[PpoHyperparameters, ValuedExperience]):
    """PPO on one base; the loss of a minibatch is a mean over its tokens."""

    method: ClassVar[str] = "ppo"
    remedy: ClassVar[str] = "Lower learning_rate_multiplier, raise kl_coef or set kl_target"

    def __init__(
        self,
        roles: Roles,
        sampling: RolloutSampling,
        score: Scorer,
        hyperparameters: PpoHyperparameters,
        settings: UpdateSettings,
    ) -> None:
        super().__init__(roles, sampling, score, hyperparameters, settings)
        self.controller = KlController(hyperparameters.kl_coef, hyperparameters.kl_target)

    def make_experiences(self, answers: Answers) -> list[ValuedExperience]:
        """Return advantages and returns by generalised advantage estimation."""
        given, mask = self.hyperparameters, answers.mask
        # Computed once for all passes: the value loss clips the distance from these.
        with torch.no_grad(), self.roles.act_as("value") as model:
            values = fill_mask(
                [response_values(model, self.roles.value_head, batch) for batch in answers.batches], mask
            )
        rewards = token_rewards(
            answers.rewards, answers.log_probs, answers.reference, mask, self.controller.coefficient
        )
        if given.whiten_rewards:
            rewards = whiten(rewards, mask, shift_mean=False)
        advantages, returns = gae(rewards, values, mask, given.gamma, given.lam)
        if given.whiten_advantages:
            advantages = whiten(advantages, mask)
        tables = [answers.split_by_batch(table) for table in (answers.log_probs, advantages, values, returns)]
        return [
            ValuedExperience(batch, old, advantage, len(old), value, gained)
            for batch, old, advantage, value, gained in zip(answers.batches, *tables, strict=True)
        ]

    def policy_loss(self, new: torch.Tensor, one: ValuedExperience) -> PolicyLoss:
        """Return the clipped surrogate; the KL term is in the rewards."""
        return policy_loss(new, one.log_probs, one.advantages, self.hyperparameters.clip_range)

    def other_backward(self, part: Sequence[ValuedExperience], share: float, sums: UpdateSums) -> None:
        """Add the value loss's gradients."""
        for one in part:
            self._value_backward(one, share, sums)

    def report_iteration(self, answers: Answers, sums: UpdateSums) -> dict[str, float]:
        """Return the iteration's means, and set the KL coefficient for the next one."""
        tokens = max(1, sums.value_tokens)
        facts = {
            **answers.mean_measures(),
            "kl_coef": self.controller.coefficient,
            **sums.update_means(),
            "value_loss": sums.value / tokens,
            "value_clip_fraction": sums.value_clipped / tokens,
        }
        facts["loss"] = facts["policy_loss"] + self.hyperparameters.value_coef * facts["value_loss"]
        facts["objective"] = facts["reward"] - self.controller.coefficient * facts["kl"]
        # Last: what is reported was trained with the coefficient of before.
        self.controller.update_coefficient(facts["kl"])
        return facts

    def iteration_state(self) -> dict[str, float]:
        """Return the KL coefficient."""
        return {"kl_coef": self.controller.coefficient}

    def restore_state(self, state: Mapping[str, float]) -> None:
        """Restore the KL coefficient."""
        self.controller.coefficient = float(state["kl_coef"])

    def _value_backward(self, one: ValuedExperience, share: float, sums: UpdateSums) -> None:
        given = self.hyperparameters
        with self.roles.act_as("value") as model:
            new = response_values(model, self.roles.value_head, one.batch)
            loss = value_loss(new, one.values, one.returns, given.value_clip_range)
            (given.value_coef * loss.loss / share).backward()
        sums.value += float(loss.loss.detach())
        sums.value_clipped += float(loss.clipped)
        sums.value_tokens += len(new)
