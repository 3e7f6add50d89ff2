"""GRPO as a job: policy, reward and reference on one base, and no value function."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from trainer.contract.methods.grpo import GroupHyperparameters
from trainer.engine.onpolicy.recipe import OnPolicyRecipe
from trainer.engine.onpolicy.reward_source import RewardedRecipe
from trainer.engine.onpolicy.rollout import RolloutSampling
from trainer.engine.onpolicy.scorers import Scorer
from trainer.engine.onpolicy.updates import UpdateSettings
from trainer.kit.plot_spec import PlotSpec
from trainer.recipes.grpo.iteration import Grpo


class GroupRecipe(OnPolicyRecipe):
    """Learn from how answers to one prompt compare with each other, whoever judges them."""

    critic: ClassVar[bool] = False
    plots: ClassVar[tuple[PlotSpec, ...]] = (
        *OnPolicyRecipe.plots,
        PlotSpec(title="Groups whose answers all have one reward", y=("flat_groups",)),
    )
    hyperparameters: GroupHyperparameters
    _has_warned: bool = False

    def make_algorithm(self, sampling: RolloutSampling, score: Scorer, settings: UpdateSettings) -> Grpo:
        """Return GRPO."""
        return Grpo(self.roles, sampling, score, self.hyperparameters, settings)

    def review_iteration(self, facts: Mapping[str, float]) -> None:
        """Say once if an iteration had nothing to learn from."""
        if facts["flat_groups"] == 1 and not self._has_warned:
            self._has_warned = True
            self.job.warn(
                "All answers to each prompt had the same reward in an iteration, so that none was better than another "
                "and the reward taught nothing. Raise group_size or temperature, or choose a reward with more steps."
            )


class GrpoRecipe(GroupRecipe, RewardedRecipe):
    """With the hyperparameter `reward` as the judge."""
