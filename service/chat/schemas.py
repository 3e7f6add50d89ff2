"""OpenAI's chat completions: the request, the answer, and the chunks of a stream."""

from __future__ import annotations

from typing import Annotated, Any, Literal, cast

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationInfo, field_validator, model_validator

from service.kit.members import LEFT_OUT_IF_NULL
from trainer.contract.rows import Message

FinishReason = Literal["stop", "length", "tool_calls", "content_filter", "function_call"]
MAX_STOPS = 4
MAX_ANSWERS = 16
StopText = Annotated[str, StringConstraints(min_length=1, max_length=256)]


WITHOUT_EFFECT = (
    "user",
    "metadata",
    "store",
    "service_tier",
    "prompt_cache_key",
    "prompt_cache_options",
    "prompt_cache_retention",
    "safety_identifier",
    "reasoning_effort",
    "verbosity",
    "modalities",
    "prediction",
)
"""Parameters of OpenAI's that are accepted and change nothing here."""
_REFUSED = {
    "audio": "answers are text alone",
    "functions": "it is deprecated; use tools",
    "function_call": "it is deprecated; use tool_choice",
    "moderation": "nothing is moderated here",
    "web_search_options": "models here cannot search the web",
}


class StreamOptions(BaseModel):
    """What a stream has besides the answer."""

    model_config = ConfigDict(extra="forbid")

    include_usage: bool = False
    """Whether one last chunk, without choices, counts the tokens."""
    include_obfuscation: bool = False
    """Known to OpenAI's clients; changes nothing here."""


class ToolFunction(BaseModel):
    """A function that the model may call."""

    name: str = Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9_.-]+$")
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class Tool(BaseModel):
    """A tool; functions are the only kind."""

    type: Literal["function"]
    function: ToolFunction


class ChatCompletionRequest(BaseModel):
    """The body of a chat completion. Those of WITHOUT_EFFECT are accepted and change nothing."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {
                    "model": "smollm2-135m-instruct",
                    "messages": [{"role": "user", "content": "你好, how are you?"}],
                    "max_tokens": 64,
                    "temperature": 0.7,
                }
            ]
        },
    )

    model: str = Field(min_length=1, max_length=256, description="A base of the catalog, `ft:…`, a checkpoint, a job.")
    messages: Annotated[tuple[Message, ...], Field(min_length=1, max_length=2048)]
    temperature: float | None = Field(None, ge=0, le=2, strict=True)
    top_p: float | None = Field(None, gt=0, le=1, strict=True)
    n: int | None = Field(None, ge=1, le=MAX_ANSWERS, strict=True)
    max_tokens: int | None = Field(None, ge=1, le=1 << 20, strict=True)
    max_completion_tokens: int | None = Field(None, ge=1, le=1 << 20, strict=True)
    stop: StopText | Annotated[list[StopText], Field(max_length=MAX_STOPS)] | None = None
    seed: int | None = Field(None, ge=-(1 << 63), lt=1 << 63, strict=True)
    presence_penalty: float | None = Field(None, ge=-2, le=2, strict=True)
    frequency_penalty: float | None = Field(None, ge=-2, le=2, strict=True)
    logit_bias: Annotated[dict[str, Annotated[float, Field(ge=-100, le=100)]], Field(max_length=1024)] | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = Field(None, ge=0, le=20, strict=True)
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    tools: Annotated[list[Tool], Field(max_length=128)] | None = None
    tool_choice: Literal["none", "auto", "required"] | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    response_format: dict[str, Any] | None = None
    user: str | None = Field(None, max_length=512)
    metadata: dict[str, str] | None = None
    store: bool | None = None
    service_tier: str | None = None
    prompt_cache_key: str | None = None
    prompt_cache_options: dict[str, Any] | None = None
    prompt_cache_retention: str | None = None
    safety_identifier: str | None = None
    reasoning_effort: str | None = Field(None, max_length=64)
    verbosity: Literal["low", "medium", "high"] | None = None
    modalities: Annotated[list[Literal["text"]], Field(min_length=1, max_length=1)] | None = None
    prediction: dict[str, Any] | None = None
    audio: None = None
    functions: None = None
    function_call: None = None
    moderation: None = None
    web_search_options: None = None

    @field_validator(*_REFUSED, mode="before")
    @classmethod
    def _refuse_by_name(cls, value: Any, info: ValidationInfo) -> Any:
        if value is not None:
            raise ValueError(f"is not supported: {_REFUSED[info.field_name or '']}; leave it out")
        return None

    @field_validator("modalities", mode="before")
    @classmethod
    def _refuse_audio(cls, value: Any) -> Any:
        if isinstance(value, list) and "audio" in cast("list[Any]", value):
            raise ValueError('audio is not supported: answers are text alone; leave it out, or send ["text"]')
        return cast("Any", value)

    @field_validator("logit_bias")
    @classmethod
    def _token_ids(cls, value: dict[str, float] | None) -> dict[str, float] | None:
        wrong = next((key for key in value or () if not (key.isascii() and key.isdigit() and len(key) < 10)), None)
        if wrong is not None:
            raise ValueError(f"its keys are token ids, whole numbers; {wrong[:32]!r} is none")
        return value

    @model_validator(mode="after")
    def _check_combinations(self) -> ChatCompletionRequest:
        if self.top_logprobs and not self.logprobs:
            raise ValueError("top_logprobs needs logprobs: true")
        if self.stream_options is not None and not self.stream:
            raise ValueError("stream_options needs stream: true")
        return self

    @property
    def stops(self) -> tuple[str, ...]:
        """The stops as a tuple."""
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())

    @property
    def most_tokens(self) -> int | None:
        """The most tokens of an answer, by the newer or the older name."""
        return self.max_completion_tokens or self.max_tokens


class TopLogprob(BaseModel):
    """One of the likeliest tokens in a place."""

    token: str
    bytes: list[int] | None
    logprob: float


class TokenLogprob(TopLogprob):
    """A token of the answer with its natural log-probability."""

    top_logprobs: list[TopLogprob]


class Logprobs(BaseModel):
    """The log-probabilities of an answer's tokens."""

    content: list[TokenLogprob] | None
    refusal: list[TokenLogprob] | None = None


class CalledFunction(BaseModel):
    """The function that the model calls, with its arguments as JSON text."""

    name: str
    arguments: str


class ToolCall(BaseModel):
    """A call that the model makes."""

    id: str
    type: Literal["function"] = "function"
    function: CalledFunction


class AnswerMessage(BaseModel):
    """What the model says. Members that are OpenAI's, and optional there, are left out if there is nothing in them."""

    role: Literal["assistant"] = "assistant"
    content: str | None
    refusal: str | None = None
    reasoning_content: Annotated[str | None, LEFT_OUT_IF_NULL] = None
    """What it thought first, of models that show that."""
    tool_calls: Annotated[list[ToolCall] | None, LEFT_OUT_IF_NULL] = None


class Choice(BaseModel):
    """One of the `n` answers to a request."""

    index: int
    message: AnswerMessage
    finish_reason: FinishReason
    logprobs: Logprobs | None = None


class Usage(BaseModel):
    """Tokens of the prompt and of all answers."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class ChatCompletion(BaseModel):
    """A whole answer, in the form of OpenAI's `chat.completion`."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: list[Choice]
    usage: Usage


class FunctionDelta(BaseModel):
    """A piece of a call's function."""

    name: str | None = None
    arguments: str | None = None


class ToolCallDelta(BaseModel):
    """A piece of a call."""

    index: int
    id: str | None = None
    type: Literal["function"] | None = None
    function: FunctionDelta | None = None


class Delta(BaseModel):
    """What a chunk adds to an answer."""

    role: Literal["assistant"] | None = None
    content: str | None = None
    reasoning_content: str | None = None
    tool_calls: list[ToolCallDelta] | None = None

    @model_validator(mode="before")
    @classmethod
    def _read_newer_name(cls, value: Any) -> Any:
        """Read `reasoning`, which newer inference servers write for `reasoning_content`."""
        delta = cast("dict[str, Any]", value) if isinstance(value, dict) else {}
        return {**delta, "reasoning_content": delta["reasoning"]} if delta.get("reasoning") else cast("Any", value)


class ChunkChoice(BaseModel):
    """The piece of one answer in a chunk."""

    index: int
    delta: Delta
    finish_reason: FinishReason | None = None
    logprobs: Logprobs | None = None


class Chunk(BaseModel):
    """OpenAI's chat completion chunk."""

    id: str
    object: Literal["chat.completion.chunk"] = "chat.completion.chunk"
    created: int
    model: str
    choices: list[ChunkChoice]
    usage: Usage | None = None
