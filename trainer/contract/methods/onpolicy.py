"""What methods on the model's own answers share on the wire: the reward, the sampling and the updates."""

from __future__ import annotations

from abc import abstractmethod
from typing import Annotated, Any, ClassVar, Literal, Self, cast

from pydantic import Discriminator, Field, Tag, ValidationError, model_validator

from trainer.contract.methods.base import Auto
from trainer.contract.methods.conversations import ConversationHyperparameters
from trainer.contract.methods.reward_functions import REWARD_PARAMETERS, RewardFunction
from trainer.frozen import Exact


class ModelReward(Exact):
    """The result of a reward job, by its name `ft:…` or its job's id."""

    model: str = Field(min_length=1, max_length=256)


class FunctionReward(Exact):
    """A programmatic reward from the trainer's list; `parameters` are that function's own."""

    function: Literal["length", "contains", "lexicon", "exact_match", "json_valid"]
    parameters: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _check_parameters(self) -> FunctionReward:
        try:
            self.parsed()
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            where = ".".join(["parameters", *map(str, first["loc"])])
            raise ValueError(f"{where} of the reward function {self.function}: {first['msg']}") from error
        return self

    def parsed(self) -> RewardFunction:
        """Return the parameters as the function's own class."""
        return REWARD_PARAMETERS[self.function].model_validate(self.parameters)


def _kind_of_reward(value: Any) -> str | None:
    """Return the member of `Reward` that is meant, so that only its own mistakes are reported."""
    if isinstance(value, Exact):
        return type(value).__name__
    reward_block = cast("dict[str, Any]", value) if isinstance(value, dict) else {}
    names = {"function": FunctionReward.__name__, "model": ModelReward.__name__}
    return next((name for key, name in names.items() if key in reward_block), None)


Reward = Annotated[
    Annotated[ModelReward, Tag("ModelReward")] | Annotated[FunctionReward, Tag("FunctionReward")],
    Discriminator(
        _kind_of_reward,
        custom_error_type="reward_unknown",
        custom_error_message='must be {"model": "ft:… or ftjob-…"}, the result of a reward job, or {"function": …}',
    ),
]


class OnPolicyHyperparameters(ConversationHyperparameters):
    """One iteration samples answers to some prompts and takes `passes` · `minibatches` optimizer steps on them."""

    learning_rate_scale: ClassVar[float] = 0.2
    kl_max: float = Field(default=50.0, gt=0, le=10000)
    """Stop the job if the mean KL a response passes this many nats."""
    kl_stop: Annotated[float, Field(gt=0, le=100)] | None = None
    """End an iteration's updates early if the approximate KL a token to the sampling policy passes this."""
    clip_range: float = Field(default=0.2, gt=0, lt=1)
    minibatches: int = Field(default=1, ge=1, le=256)
    """Optimizer steps of one pass over an iteration's answers."""
    iterations: Auto | Annotated[int, Field(ge=1, le=1000000)] = "auto"
    max_new_tokens: int = Field(default=64, ge=1, le=8192)
    temperature: float = Field(default=1.0, gt=0, le=10)
    top_p: float = Field(default=1.0, gt=0, le=1)
    missing_eos_penalty: Annotated[float, Field(ge=0, le=1000)] | None = None

    def find_ineffective(self, *, has_validation: bool) -> dict[str, str]:
        """Name the limits of an iteration's later updates too, if there is one update alone."""
        ineffective = super().find_ineffective(has_validation=has_validation)
        if self.passes * self.minibatches == 1:
            reason = "an iteration with one update never moves away from the policy that sampled its answers"
            ineffective |= self.given_options(["clip_range", "kl_stop"], reason)
        return ineffective

    @property
    @abstractmethod
    def passes(self) -> int:
        """The passes over an iteration's answers."""

    @abstractmethod
    def prompts_an_iteration(self, rows: int) -> int:
        """Return how many prompts an iteration takes from a training file of so many rows."""

    @property
    def answers_a_prompt(self) -> int:
        """How many answers an iteration draws to each prompt."""
        return 1

    @property
    def answers_a_check(self) -> int:
        """How many answers an evaluation draws to each prompt."""
        return 1


class RewardedHyperparameters(OnPolicyHyperparameters):
    """With a reward among the hyperparameters, and as many prompts an iteration as `rollout_prompts`."""

    reward: Reward
    rollout_prompts: int = Field(default=16, ge=1, le=4096)

    def prompts_an_iteration(self, rows: int) -> int:  # noqa: ARG002
        return self.rollout_prompts

    @model_validator(mode="after")
    def _one_cut(self) -> Self:
        if "auto" not in (self.batch_size, self.gradient_accumulation_steps):
            raise ValueError(
                "an update is on the answers of one iteration, divided by minibatches: give batch_size, the answers of "
                "one forward pass, or gradient_accumulation_steps, the passes of an update, but not both"
            )
        return self
