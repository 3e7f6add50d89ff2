"""Group-relative policy optimisation: answers to one prompt are judged against each other (arXiv 2402.03300)."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from trainer.contract.methods.base import TrainingMethod
from trainer.contract.methods.onpolicy import OnPolicyHyperparameters, RewardedHyperparameters
from trainer.frozen import Frozen


class GroupHyperparameters(OnPolicyHyperparameters):
    """One iteration samples `group_size` answers to each of its prompts.

    It takes `grpo_epochs` · `minibatches` optimizer steps on them. Dr. GRPO (Liu et al. 2025, arXiv 2503.20783) is
    `loss: "dr_grpo"` with `scale_rewards: "none"`.
    """

    group_size: int = Field(default=8, ge=2, le=1024)
    grpo_epochs: int = Field(default=1, ge=1, le=64)
    kl_coef: float = Field(default=0.04, ge=0, le=100)
    """The weight of the KL to the model at the start, in the loss; 0 for none."""
    kl_correction: bool = True
    """Weigh a token's KL by its ratio of new to old probability, so that its gradient is that of the KL to the model
    at the start (DeepSeek-V3.2, arXiv 2512.02556); without it, as first published, it is that of the reverse KL."""
    loss: Literal["grpo", "dapo", "dr_grpo"] = "grpo"
    """What tokens' losses are a mean over: `grpo` each answer's tokens, then the answers; `dapo` all tokens alike
    (Yu et al. 2025, arXiv 2503.14476); `dr_grpo` answers, each over the constant `max_new_tokens`."""
    scale_rewards: Literal["group", "none"] = "group"
    """Whether a group's advantages are divided by the standard deviation of its rewards."""

    def find_ineffective(self, *, has_validation: bool) -> dict[str, str]:
        """Name what is about the KL too, if the loss has none."""
        ineffective = super().find_ineffective(has_validation=has_validation)
        if not self.kl_coef:
            ineffective |= self.given_options(["kl_correction"], "the loss has no KL with kl_coef 0")
        return ineffective

    @property
    def passes(self) -> int:
        """The passes over an iteration's answers."""
        return self.grpo_epochs

    @property
    def answers_a_prompt(self) -> int:
        """How many answers an iteration draws to each prompt."""
        return self.group_size


class GrpoHyperparameters(GroupHyperparameters, RewardedHyperparameters):
    """The answers are judged by a reward."""

    rollout_prompts: int = Field(default=4, ge=1, le=4096)


class GrpoParameters(Frozen):
    """The block `grpo` of the wire's `method`."""

    hyperparameters: GrpoHyperparameters


class GrpoMethod(TrainingMethod):
    """`method: {type: "grpo", grpo: {hyperparameters: {…}}}`."""

    in_words: ClassVar[tuple[str, str]] = ("group-relative policy optimisation against a reward", "prompts")
    row_format: ClassVar[str] = "grpo"
    headline: ClassVar[str | None] = "reward"

    type: Literal["grpo"] = "grpo"
    grpo: GrpoParameters

    @property
    def hyperparameters(self) -> GrpoHyperparameters:
        """The block's hyperparameters, by a name that every method shares."""
        return self.grpo.hyperparameters
