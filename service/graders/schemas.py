"""What the wire takes and shows of graders: OpenAI's, and sentences beside the flags."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from trainer.graders import Grade, GradeErrors, Grader

_CHECK: dict[str, JsonValue] = {
    "type": "string_check",
    "name": "right answer",
    "input": "{{sample.output_text}}",
    "reference": "{{item.answer}}",
    "operation": "ilike",
}


class GraderCheck(BaseModel):
    """The body of a validation."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"grader": _CHECK}]})

    grader: Grader


class GraderRun(GraderCheck):
    """The body of a run."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [{"grader": _CHECK, "model_sample": "答案是巴黎。", "item": {"answer": "巴黎"}}],
        },
    )

    model_sample: Annotated[str, Field(description="The answer; if it is JSON, `{{sample.output_json}}` is its value.")]
    item: dict[str, Any] | None = Field(None, description="The row that was answered: what `{{item.…}}` stands for.")


class GraderAnswer(BaseModel):
    """The grader, as it was understood."""

    grader: Grader = Field(examples=[_CHECK])


class GradeMetadata(BaseModel):
    """How the reward came about."""

    name: str
    type: str = Field(examples=["string_check"])
    errors: GradeErrors
    execution_time: float = Field(description="In seconds.")
    scores: dict[str, Any] = Field(description="Of a `multi`: its graders' rewards by name.", examples=[{}])
    token_usage: int | None = Field(description="All tokens of models that graded; null if none did.")
    sampled_model_name: str | None = Field(description="The model that graded, if there was one.")


class UsageObject(BaseModel):
    """Tokens of a model that graded."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class GraderRunAnswer(BaseModel):
    """OpenAI's answer. With an error the reward is 0."""

    reward: float = Field(examples=[1.0])
    metadata: GradeMetadata
    sub_rewards: dict[str, float] = Field(examples=[{}])
    model_grader_token_usage_per_model: dict[str, UsageObject] = Field(examples=[{}])

    @classmethod
    def from_grade(cls, grade: Grade, *, name: str, kind: str, seconds: float) -> GraderRunAnswer:
        """Return the answer for a grade that took so long."""
        token_usage = grade.usage
        metadata = GradeMetadata(
            name=name,
            type=kind,
            errors=grade.errors,
            execution_time=round(seconds, 6),
            scores=dict(grade.sub_rewards),
            token_usage=sum(usage.total_tokens for usage in token_usage.values()) if token_usage else None,
            sampled_model_name=next(iter(token_usage)) if len(token_usage) == 1 else None,
        )
        per_model = {model: UsageObject(**usage.model_dump()) for model, usage in token_usage.items()}
        return cls(
            reward=grade.reward,
            metadata=metadata,
            sub_rewards=grade.sub_rewards,
            model_grader_token_usage_per_model=per_model,
        )
