"""What all graders share: the model's answer, what a grade is, and what graders ask for from outside."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, Protocol, cast

from pydantic import Field, StringConstraints

from trainer.frozen import Frozen

MAX_TEXT = 1 << 18
"""Characters of a text in a grader, and bytes of a Python source."""
MOST_CHARACTERS_TOGETHER = 4 << 20
"""Characters of all texts of one grading, after everything has been put in."""
MOST_CELLS, MOST_CELLS_TOGETHER = 1_000_000_000, 4_000_000_000
"""Cells of the table of a comparison, the product of both texts' lengths, and of all comparisons of one grading."""
Name = Annotated[str, StringConstraints(min_length=1, max_length=128)]
Template = Annotated[str, StringConstraints(max_length=MAX_TEXT)]
Flag = Literal[
    "formula_parse_error",
    "invalid_variable_error",
    "model_grader_parse_error",
    "model_grader_refusal_error",
    "model_grader_server_error",
    "other_error",
    "python_grader_runtime_error",
    "python_grader_server_error",
    "sample_parse_error",
    "truncated_observation_error",
    "unresponsive_reward_error",
]


@dataclass(frozen=True)
class Sample:
    """A model's answer as graders see it. Make it by `from_text`."""

    output_text: str
    output_tools: tuple[Mapping[str, Any], ...] = ()
    """The tool calls as OpenAI's chat has them."""
    output_json: Any = None
    is_json: bool = False
    """Whether the text is one JSON value; then `output_json` is that value."""

    @classmethod
    def from_text(cls, text: str, tools: Sequence[Mapping[str, Any]] = ()) -> Sample:
        """Return the sample of an answer's text and its tool calls."""
        is_json, value = parse_json(text)
        return cls(output_text=text, output_tools=tuple(tools), output_json=value, is_json=is_json)

    def template_namespace(self) -> dict[str, Any]:
        """Return what `sample` is in templates and in Python; without JSON in the text there is no `output_json`."""
        tools = [dict(call) for call in self.output_tools]
        message = {"role": "assistant", "content": self.output_text, "tool_calls": tools}
        namespace: dict[str, Any] = {
            "output_text": self.output_text,
            "output_tools": tools,
            "choices": [{"index": 0, "message": message}],
        }
        return namespace | {"output_json": self.output_json} if self.is_json else namespace


def parse_json(text: str) -> tuple[bool, Any]:
    """Return whether a text is one JSON value (RFC 8259: no NaN), and the value."""
    try:
        return True, json.loads(text, parse_constant=_no_constant)
    except (ValueError, RecursionError):  # also numbers with thousands of digits, and lists in lists in lists
        return False, None


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


class Failure(Exception):
    """A grader that cannot give a reward: OpenAI's flag for it, and a sentence."""

    def __init__(self, flag: Flag, message: str, *, kind: str | None = None) -> None:
        super().__init__(message)
        self.flag: Flag = flag
        self.message = message
        self.kind = kind
        """What broke, in one word, if the machine did: OpenAI's `python_grader_server_error_type`."""


class GradeErrors(Frozen):
    """OpenAI's flags; `messages`, a sentence for each that is set, is an addition."""

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

    @classmethod
    def from_failure(cls, failure: Failure, *, grader: str) -> GradeErrors:
        """Return the flags of one failure."""
        message = failure.message.encode("utf-8", "replace").decode()  # halves of surrogate pairs are not text
        flags: dict[str, Any] = {failure.flag: True, "messages": [f"{grader}: {message}"]}
        if failure.flag == "python_grader_runtime_error":
            flags["python_grader_runtime_error_details"] = message
        elif failure.flag == "python_grader_server_error":
            flags["python_grader_server_error_type"] = failure.kind or "sandbox"
        elif failure.flag == "model_grader_server_error":
            flags["model_grader_server_error_details"] = message
        return cls(**flags)

    @property
    def has_any(self) -> bool:
        """Whether a flag is set."""
        return bool(self.messages)

    def join_errors(self, other: GradeErrors) -> GradeErrors:
        """Return the flags of both; of details, the first."""
        own_errors, other_errors = self.model_dump(), other.model_dump()
        joined_errors: dict[str, Any] = {name: own_errors[name] or other_errors[name] for name in own_errors}
        joined_errors["messages"] = [*self.messages, *other.messages]
        return GradeErrors(**joined_errors)


class TokenUsage(Frozen):
    """Tokens of a model that graded."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    total_tokens: int = 0

    def __add__(self, other: TokenUsage) -> TokenUsage:
        return TokenUsage(
            prompt_tokens=self.prompt_tokens + other.prompt_tokens,
            completion_tokens=self.completion_tokens + other.completion_tokens,
            total_tokens=self.total_tokens + other.total_tokens,
        )


class Grade(Frozen):
    """What a grader says of an answer. The reward is finite; with an error it is 0, as OpenAI's is."""

    reward: float = 0.0
    errors: GradeErrors = GradeErrors()
    sub_rewards: dict[str, float] = Field(default_factory=dict[str, float])
    """Of a `multi`: the rewards of its graders by name; those that failed have 0."""
    usage: dict[str, TokenUsage] = Field(default_factory=dict[str, TokenUsage])
    """Tokens by the model that graded."""

    @property
    def failed(self) -> bool:
        """Whether the reward says nothing because something went wrong."""
        return self.errors.has_any


class GraderQuestion(Frozen):
    """What a model that grades is asked: plain messages, and OpenAI's names for the sampling."""

    model: str
    messages: list[dict[str, str]]
    sampling: dict[str, Any] = Field(default_factory=dict[str, Any])
    schema_: dict[str, Any] | None = None
    """The JSON schema of the answer, for servers that hold models to one."""


class Reply(Frozen):
    """What it answers. `cut` if its tokens ran out."""

    text: str
    usage: TokenUsage = TokenUsage()
    cut: bool = False


class AskGraderModel(Protocol):
    """Asks a model. Raises Failure (`model_grader_server_error`, `model_grader_refusal_error`)."""

    def __call__(self, question: GraderQuestion) -> Reply: ...


class RunPython(Protocol):
    """Runs a Python grader's source apart. Raises Failure (`python_grader_…`, `unresponsive_reward_error`)."""

    def __call__(self, source: str, sample: Mapping[str, Any], item: Mapping[str, Any]) -> float:
        """Return what `grade(sample, item)` returned, a finite number."""
        ...


@dataclass(frozen=True)
class Tools:
    """What graders may use from outside. What is missing makes the graders that need it fail."""

    ask: AskGraderModel | None = None
    run_python: RunPython | None = None


@dataclass
class GradingWork:
    """What one grading has done so far. A `multi` shares it among its graders, so that many cost no more than one."""

    characters: int = 0
    cells: int = 0

    def count_characters(self, characters: int) -> None:
        """Count a filled text. Raises Failure beyond the bound of a grading."""
        self.characters += characters
        if self.characters > MOST_CHARACTERS_TOGETHER:
            raise Failure(
                "truncated_observation_error",
                f"the filled templates have more than {MOST_CHARACTERS_TOGETHER} characters together, the most of one "
                "grading",
            )

    def count_cells(self, length: int, other_length: int, unit: str) -> None:
        """Count a comparison of two texts by their common subsequence. Raises Failure beyond the bounds."""
        if length * other_length > MOST_CELLS:
            raise Failure(
                "truncated_observation_error",
                f"a text of {length} {unit} is too long to be compared with one of {other_length}: the product of both "
                f"is more than {MOST_CELLS}",
            )
        self.cells += length * other_length
        if self.cells > MOST_CELLS_TOGETHER:
            raise Failure(
                "truncated_observation_error",
                f"the texts are too long to be compared so often: the products of their lengths come to more than "
                f"{MOST_CELLS_TOGETHER} together, the most of one grading",
            )


@dataclass(frozen=True)
class Scene:
    """One grading: the row, the answer, the tools; tokens are counted into `usage`."""

    item: Mapping[str, Any]
    sample: Sample
    tools: Tools
    usage: dict[str, TokenUsage] = field(default_factory=dict[str, TokenUsage])
    work: GradingWork = field(default_factory=GradingWork)

    def ask_model(self, question: GraderQuestion) -> Reply:
        """Ask a model and count its tokens. Raises Failure."""
        if self.tools.ask is None:
            raise Failure("model_grader_server_error", "no model can be used as a grader here")
        reply = self.tools.ask(question)
        self.usage[question.model] = self.usage.get(question.model, TokenUsage()) + reply.usage
        return reply


def as_mapping(value: Any) -> Mapping[str, Any]:
    """Return a row as a mapping; anything else, such as None, has no fields."""
    return cast("Mapping[str, Any]", value) if isinstance(value, Mapping) else {}
