"""Reinforcement fine-tuning as OpenAI's API has it: a grader judges answers, GRPO learns from them."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from trainer.contract.methods.base import Auto, TrainingMethod
from trainer.contract.methods.grpo import GroupHyperparameters
from trainer.frozen import Frozen
from trainer.graders import Grader

AUTO_PROMPTS = 4
MOST_ANSWERS = 1024


class ReinforcementHyperparameters(GroupHyperparameters):
    """OpenAI's names, and GRPO's beside them. `batch_size` is the prompts of an iteration, which is a step."""

    compute_multiplier: Auto | Annotated[float, Field(gt=0.00001, le=10)] = "auto"
    """Multiplies `group_size`, the answers to each prompt; `auto` is 1."""
    eval_interval: Auto | Annotated[int, Field(ge=1)] = "auto"
    """The steps between evaluations: the same as `eval_steps`."""
    eval_samples: Auto | Annotated[int, Field(ge=1, le=64)] = "auto"
    """Answers that an evaluation draws to each prompt; `auto` is 1."""
    reasoning_effort: Literal["default", "low", "medium", "high"] = "default"
    """Kept and shown. It changes nothing: the models that are trained here have no such setting."""

    evaluation_options: ClassVar[tuple[str, ...]] = (
        *GroupHyperparameters.evaluation_options,
        "eval_interval",
        "eval_samples",
    )

    @property
    def steps_between_evaluations(self) -> Auto | int:
        """Return `eval_interval`, or `eval_steps` if that is given."""
        return self.eval_steps if self.eval_interval == "auto" else self.eval_interval

    @property
    def answers_a_prompt(self) -> int:
        """How many answers an iteration draws to each prompt: at least two, as they are compared."""
        multiplier = 1.0 if self.compute_multiplier == "auto" else self.compute_multiplier
        return max(2, round(self.group_size * multiplier))

    @property
    def answers_a_check(self) -> int:
        """How many answers an evaluation draws to each prompt."""
        return 1 if self.eval_samples == "auto" else self.eval_samples

    def prompts_an_iteration(self, rows: int) -> int:
        """Return `batch_size`; `auto` is 4, or all rows if there are fewer."""
        return min(AUTO_PROMPTS, rows) if self.batch_size == "auto" else self.batch_size

    @model_validator(mode="after")
    def _fits_together(self) -> ReinforcementHyperparameters:
        if "auto" not in (self.eval_interval, self.eval_steps) and self.eval_interval != self.eval_steps:
            raise ValueError("eval_interval and eval_steps are two names of the same: leave one out")
        if self.answers_a_prompt > MOST_ANSWERS:
            raise ValueError(
                f"group_size {self.group_size} times compute_multiplier {self.compute_multiplier} is "
                f"{self.answers_a_prompt} answers to each prompt; {MOST_ANSWERS} are the most"
            )
        return self


class ReinforcementParameters(Frozen):
    """The block `reinforcement` of the wire's `method`."""

    grader: Grader
    hyperparameters: ReinforcementHyperparameters = Field(default_factory=ReinforcementHyperparameters)


class ReinforcementMethod(TrainingMethod):
    """`method: {type: "reinforcement", reinforcement: {grader: {…}, hyperparameters: {…}}}`."""

    in_words: ClassVar[tuple[str, str]] = ("reinforcement against a grader", "prompts")
    row_format: ClassVar[str] = "reinforcement"
    headline: ClassVar[str | None] = "reward"

    type: Literal["reinforcement"] = "reinforcement"
    reinforcement: ReinforcementParameters

    @property
    def hyperparameters(self) -> ReinforcementHyperparameters:
        """The block's hyperparameters, by a name that every method shares."""
        return self.reinforcement.hyperparameters
