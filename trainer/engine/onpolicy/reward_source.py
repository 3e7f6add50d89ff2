"""The reward of `ppo` and `grpo`: a function of the trainer, or a reward model on the policy's base or its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from peft import PeftModel

from trainer.contract.job import DataFile
from trainer.contract.methods.onpolicy import FunctionReward, ModelReward, RewardedHyperparameters
from trainer.contract.rows import PromptRow
from trainer.engine.data.splits import format_lines
from trainer.engine.models.load import load_model, load_tokenizer
from trainer.engine.onpolicy.prompts import PromptData
from trainer.engine.onpolicy.recipe import OnPolicyRecipe
from trainer.engine.onpolicy.roles import RewardModel, load_reward
from trainer.engine.onpolicy.scorers import Scorer, function_scorer, model_scorer
from trainer.kit.errors import TrainerError
from trainer.kit.workdir import REWARD_BASE_FOLDER, REWARD_FOLDER


class RewardedPromptData(PromptData):
    """Prompts with the references that a reward function may compare answers with."""

    def check_rows(self, file: DataFile, rows: Sequence[PromptRow], param: str) -> None:
        """Check that rows have the reference that the reward compares with."""
        reward = cast(RewardedHyperparameters, self.hyperparameters).reward
        if not (isinstance(reward, FunctionReward) and reward.parsed().needs_reference):
            return
        lacking = [row.line for row in rows if row.reference is None]
        if lacking:
            raise TrainerError(
                f"invalid_{param}",
                f"{file.filename}: the reward {reward.function} compares answers with the row's reference, which "
                f"is missing at {format_lines(lacking)}.",
                param=param,
            )


class RewardedRecipe(OnPolicyRecipe):
    """Answers are judged by the hyperparameter `reward`."""

    pipeline = RewardedPromptData

    @property
    def reward(self) -> ModelReward | FunctionReward:
        """What judges answers."""
        return cast(RewardedHyperparameters, self.hyperparameters).reward

    def load_reward(self, model: PeftModel) -> RewardModel | None:
        """Put the reward job's adapter on the policy's base, or on its own if that is another."""
        named = self.job.spec.reward
        if isinstance(self.reward, FunctionReward):
            return None
        if named is None:
            raise TrainerError("invalid_job", "The job names a reward model, but none was staged.", param="reward")
        folder = self.job.workdir / REWARD_FOLDER
        if named.base == self.job.spec.base:
            return load_reward(folder, model, param=self._reward_place)
        base = self.job.workdir / REWARD_BASE_FOLDER
        if load_tokenizer(base).get_vocab() != self.data.tokenizer.get_vocab():
            raise TrainerError(
                "incompatible_reward_model",
                f"The reward model {named.id} is on {named.base.id}, whose tokenizer is not that of "
                f"{self.job.spec.base.id}: it would read other words than the policy writes. Train a reward model on "
                f"{self.job.spec.base.id}.",
                param=self._reward_place,
            )
        self.job.warn(
            f"The reward model is on another base, {named.base.id}: two base models are held in memory instead of one."
        )
        return load_reward(folder, load_model(base, self.dtype.dtype), param=self._reward_place)

    def make_scorer(self) -> Scorer:
        """Score texts by the function, or by the reward model."""
        reward = self.reward
        if isinstance(reward, FunctionReward):
            return function_scorer(self.data.template, reward)
        return model_scorer(self.data.template, self.roles)

    @property
    def _reward_place(self) -> str:
        return f"method.{self.job.spec.method.type}.hyperparameters.reward.model"
