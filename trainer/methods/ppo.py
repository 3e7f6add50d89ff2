"""Proximal policy optimisation against a reward, with a KL leash to the model at the start (arXiv 2203.02155)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field, ValidationError, model_validator

from trainer.methods.base import Auto, CommonHyperparameters, Exact, Frozen
from trainer.methods.rewards import REWARD_PARAMETERS, RewardFunction

if TYPE_CHECKING:
    from trainer.engine.recipe import JobContext, Recipe


class ModelReward(Exact):
    """The result of a reward job, by its name `ft:…` or its job's id."""

    model: str = Field(min_length=1, max_length=256)


class FunctionReward(Exact):
    """A programmatic reward from the trainer's list; `parameters` are that function's own."""

    function: Literal["length", "contains", "lexicon", "exact_match", "json_valid"]
    parameters: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _known_parameters(self) -> FunctionReward:
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


class PpoHyperparameters(CommonHyperparameters):
    """One iteration samples `rollout_prompts` answers and takes `ppo_epochs` · `minibatches` optimizer steps."""

    learning_rate_scale: ClassVar[float] = 0.2
    reward: ModelReward | FunctionReward
    kl_coef: float = Field(default=0.05, gt=0, le=100)
    kl_target: Annotated[float, Field(gt=0, le=1000)] | None = None
    """Adapt `kl_coef` towards this KL a response in nats (Ziegler et al. 2019, arXiv 1909.08593)."""
    kl_max: float = Field(default=50.0, gt=0, le=10000)
    """Stop the job where the mean KL a response passes this many nats."""
    kl_stop: Annotated[float, Field(gt=0, le=100)] | None = None
    """End an iteration's updates early where the approximate KL a token to the sampling policy passes this."""
    clip_range: float = Field(default=0.2, gt=0, lt=1)
    value_clip_range: Annotated[float, Field(gt=0, le=10000)] | None = 0.2
    """How far an iteration may move a value from what it was at sampling; null for no limit."""
    value_coef: float = Field(default=0.1, gt=0, le=100)
    gamma: float = Field(default=1.0, gt=0, le=1)
    lam: float = Field(default=0.95, ge=0, le=1)
    ppo_epochs: int = Field(default=4, ge=1, le=64)
    minibatches: int = Field(default=1, ge=1, le=256)
    """Optimizer steps of one pass over an iteration's answers."""
    rollout_prompts: int = Field(default=16, ge=1, le=4096)
    iterations: Auto | Annotated[int, Field(ge=1, le=1000000)] = "auto"
    max_new_tokens: int = Field(default=64, ge=1, le=8192)
    temperature: float = Field(default=1.0, gt=0, le=10)
    top_p: float = Field(default=1.0, gt=0, le=1)
    whiten_rewards: bool = False
    whiten_advantages: bool = True
    missing_eos_penalty: Annotated[float, Field(ge=0, le=1000)] | None = None


class PpoParameters(Frozen):
    """The block `ppo` of the wire's `method`."""

    hyperparameters: PpoHyperparameters


class PpoMethod(Frozen):
    """`method: {type: "ppo", ppo: {hyperparameters: {…}}}`."""

    in_words: ClassVar[tuple[str, str]] = ("proximal policy optimisation against a reward", "prompts")
    """What the model card calls the method, and what it was trained on."""

    type: Literal["ppo"] = "ppo"
    ppo: PpoParameters

    @property
    def hyperparameters(self) -> PpoHyperparameters:
        """The block's hyperparameters, by a name that every method shares."""
        return self.ppo.hyperparameters

    def recipe(self, job: JobContext) -> Recipe:
        """Return what this method does in a run. Loads torch."""
        from trainer.engine.ppo.recipe import PpoRecipe

        return PpoRecipe(job)
