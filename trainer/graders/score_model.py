"""`score_model`: a model reads the answer and says a number."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from trainer.frozen import Exact
from trainer.graders.base import Failure, GraderQuestion, Scene
from trainer.graders.inputs import Input, fill_messages
from trainer.graders.leaf import Leaf
from trainer.graders.replies import parse_reply

ReasoningEffort = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]


class SamplingParams(Exact):
    """How the model's answer is drawn; without any, its likeliest tokens. `reasoning_effort` changes nothing here."""

    max_completions_tokens: Annotated[int, Field(ge=1, le=1 << 20)] | None = None
    reasoning_effort: ReasoningEffort | None = None
    seed: Annotated[int, Field(ge=-(1 << 63), lt=1 << 63)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None

    def chat_parameters(self) -> dict[str, Any]:
        """Return them by the names of a chat completion."""
        parameters = {"max_completion_tokens": self.max_completions_tokens, "seed": self.seed, "top_p": self.top_p}
        set_parameters = {name: value for name, value in parameters.items() if value is not None}
        return set_parameters | {"temperature": 0.0 if self.temperature is None else self.temperature}


class ScoreModelGrader(Leaf):
    """The model's number is the reward. It must lie in `range`."""

    type: Literal["score_model"] = "score_model"
    model: str = Field(min_length=1, max_length=256)
    input: Input
    range: Annotated[list[float], Field(min_length=2, max_length=2)] | None = None
    """The lowest and the highest score; [0, 1] if it is not given."""
    sampling_params: SamplingParams | None = None

    @field_validator("range")
    @classmethod
    def _require_ascending(cls, value: list[float] | None) -> list[float] | None:
        if value is not None and not (all(map(math.isfinite, value)) and value[0] < value[1]):
            raise ValueError("it must be two finite numbers, the lower first, such as [0, 10]")
        return value

    def list_templates(self) -> Sequence[str]:
        """Return the messages' texts."""
        return [text for message in self.input for text in message.iter_texts()]

    def compute_reward(self, scene: Scene) -> float:
        """Ask the model and return its number. Raises Failure."""
        low, high = self.range or (0.0, 1.0)
        number = {"type": "number", "minimum": low, "maximum": high}
        question = GraderQuestion(
            model=self.model,
            messages=fill_messages(self.input, scene),
            sampling=(self.sampling_params or SamplingParams()).chat_parameters(),
            schema_={"type": "object", "properties": {"result": number}, "required": ["result"]},
        )
        score = parse_reply(scene.ask_model(question), expected_result='a number, or JSON such as {"result": 0.5}')
        if isinstance(score, bool) or not isinstance(score, (int, float)):
            raise Failure("model_grader_parse_error", f"the model's result {str(score)[:80]!r} is not a number")
        if not low <= score <= high:
            raise Failure(
                "model_grader_parse_error",
                f"the model's score {str(score)[:20]} lies outside its range, {low:g} to {high:g}",
            )
        return float(score)
