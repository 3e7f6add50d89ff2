"""OpenAI's graders: what a request has, and what running one answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from pydantic import Field
from typing_extensions import NotRequired, TypedDict

from burnish.schemas import WireModel


class StringCheckGrader(TypedDict):
    """1 if two texts compare as asked; the texts may have `{{item.…}}` and `{{sample.…}}`."""

    type: Literal["string_check"]
    name: NotRequired[str]
    input: str
    reference: str
    operation: Literal["eq", "ne", "like", "ilike"]


class TextSimilarityGrader(TypedDict):
    """How alike two texts are: `fuzzy_match`, `bleu`, `gleu`, `meteor`, `rouge_1` … `rouge_5`, `rouge_l`."""

    type: Literal["text_similarity"]
    name: NotRequired[str]
    input: str
    reference: str
    evaluation_metric: str


class PythonGrader(TypedDict):
    """A source with `def grade(sample, item)`, if the server's operator allows it."""

    type: Literal["python"]
    name: NotRequired[str]
    source: str
    image_tag: NotRequired[str | None]


class GraderTextPart(TypedDict):
    """A part of a message's content."""

    type: Literal["input_text", "output_text"]
    text: str


class GraderMessage(TypedDict):
    """A message to a model that grades."""

    role: Literal["user", "assistant", "system", "developer"]
    content: str | GraderTextPart | Sequence[str | GraderTextPart]
    type: NotRequired[Literal["message"] | None]


class ScoreModelGrader(TypedDict):
    """A model says a number within `range`, [0, 1] by default."""

    type: Literal["score_model"]
    name: NotRequired[str]
    model: str
    input: Sequence[GraderMessage]
    range: NotRequired[Sequence[float] | None]
    sampling_params: NotRequired[dict[str, Any] | None]


class LabelModelGrader(TypedDict):
    """A model picks a label, inside of a `multi` alone."""

    type: Literal["label_model"]
    name: NotRequired[str]
    model: str
    input: Sequence[GraderMessage]
    labels: Sequence[str]
    passing_labels: Sequence[str]


GraderPart = StringCheckGrader | TextSimilarityGrader | PythonGrader | ScoreModelGrader | LabelModelGrader


class MultiGrader(TypedDict):
    """Several graders by name, and a formula over their rewards: `0.5 * a + 0.5 * b`."""

    type: Literal["multi"]
    name: NotRequired[str]
    graders: dict[str, GraderPart] | GraderPart
    calculate_output: str


Grader = StringCheckGrader | TextSimilarityGrader | PythonGrader | ScoreModelGrader | MultiGrader


class GraderErrors(WireModel):
    """What went wrong: OpenAI's flags, and `messages`, a sentence for each that is set."""

    formula_parse_error: bool = False
    invalid_variable_error: bool = False
    model_grader_parse_error: bool = False
    model_grader_refusal_error: bool = False
    model_grader_server_error: bool = False
    model_grader_server_error_details: str | None = None
    other_error: bool = False
    python_grader_runtime_error: bool = False
    python_grader_runtime_error_details: str | None = None
    python_grader_server_error: bool = False
    python_grader_server_error_type: str | None = None
    sample_parse_error: bool = False
    truncated_observation_error: bool = False
    unresponsive_reward_error: bool = False
    messages: list[str] = Field(default_factory=list[str])


class GraderMetadata(WireModel):
    """How a reward came about; `execution_time` is in seconds."""

    name: str
    type: str
    errors: GraderErrors
    execution_time: float
    scores: dict[str, Any] = Field(default_factory=dict[str, Any])
    token_usage: int | None = None
    sampled_model_name: str | None = None


class GraderTokens(WireModel):
    """Tokens of a model that graded."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class GraderRun(WireModel):
    """A reward; 0 if `metadata.errors` has an error."""

    reward: float
    metadata: GraderMetadata
    sub_rewards: dict[str, float] = Field(default_factory=dict[str, float])
    model_grader_token_usage_per_model: dict[str, GraderTokens] = Field(default_factory=dict[str, GraderTokens])


class GraderValidation(WireModel):
    """The grader as the server understood it."""

    grader: dict[str, Any]
