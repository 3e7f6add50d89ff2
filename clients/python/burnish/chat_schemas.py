"""OpenAI's chat completions: the arguments of a request, the answer, and the chunks of a streamed one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pydantic import Field
from typing_extensions import Required, TypedDict

from burnish.schemas import WireModel


class ToolCallFunction(WireModel):
    """The function that the model calls; `arguments` is JSON text."""

    name: str
    arguments: str


class ToolCall(WireModel):
    """A call that the model makes."""

    id: str
    type: str = "function"
    function: ToolCallFunction


class ChatCompletionMessage(WireModel):
    """What the model says."""

    role: str = "assistant"
    content: str | None = None
    refusal: str | None = None
    reasoning_content: str | None = None
    """What it thought first, of models that show that."""
    tool_calls: list[ToolCall] | None = None


class TopLogprob(WireModel):
    """One of the likeliest tokens in a place, with its natural log-probability."""

    token: str
    bytes: list[int] | None = None
    logprob: float


class TokenLogprob(TopLogprob):
    """A token of the answer."""

    top_logprobs: list[TopLogprob] = Field(default_factory=list[TopLogprob])


class Logprobs(WireModel):
    """The log-probabilities of an answer's tokens."""

    content: list[TokenLogprob] | None = None
    refusal: list[TokenLogprob] | None = None


class ChatCompletionChoice(WireModel):
    """One answer; `finish_reason` is `stop`, `length`, `tool_calls` or `content_filter`."""

    index: int
    message: ChatCompletionMessage
    finish_reason: str
    logprobs: Logprobs | None = None


class CompletionUsage(WireModel):
    """Tokens of the prompt and of all answers."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class ChatCompletion(WireModel):
    """The answer to `chat.completions.create`."""

    id: str
    object: str = "chat.completion"
    created: int
    model: str
    choices: list[ChatCompletionChoice]
    usage: CompletionUsage | None = None


class FunctionDelta(WireModel):
    """A piece of a call's function."""

    name: str | None = None
    arguments: str | None = None


class ToolCallDelta(WireModel):
    """A piece of a call; pieces with the same `index` belong together."""

    index: int
    id: str | None = None
    type: str | None = None
    function: FunctionDelta | None = None


class ChoiceDelta(WireModel):
    """What a chunk adds to an answer."""

    role: str | None = None
    content: str | None = None
    refusal: str | None = None
    reasoning_content: str | None = None
    tool_calls: list[ToolCallDelta] | None = None


class ChatCompletionChunkChoice(WireModel):
    """The piece of one answer in a chunk."""

    index: int
    delta: ChoiceDelta
    finish_reason: str | None = None
    logprobs: Logprobs | None = None


class ChatCompletionChunk(WireModel):
    """A piece of a streamed answer; the one with `usage`, if it was asked for, has no choices."""

    id: str
    object: str = "chat.completion.chunk"
    created: int
    model: str
    choices: list[ChatCompletionChunkChoice]
    usage: CompletionUsage | None = None


class ChatMessage(TypedDict, total=False):
    """A message of a conversation; `role` is `system`, `user`, `assistant` or `tool`."""

    role: Required[str]
    content: str | list[dict[str, Any]] | None
    name: str
    tool_calls: list[dict[str, Any]]
    tool_call_id: str


class StreamOptions(TypedDict, total=False):
    """`include_usage`: the last chunk counts the tokens."""

    include_usage: bool


class CreateChatCompletion(TypedDict, total=False):
    """The arguments of `chat.completions.create`, beside `stream`.

    `model` is a base's name, an outcome (`ft:…`) or one of its checkpoints. A message of an earlier answer can stand
    among `messages` as it is. `extra_body` holds fields that this version does not know.
    """

    model: Required[str]
    messages: Required[Sequence[ChatMessage | ChatCompletionMessage | Mapping[str, Any]]]
    temperature: float | None
    top_p: float | None
    n: int | None
    max_tokens: int | None
    max_completion_tokens: int | None
    stop: str | list[str] | None
    seed: int | None
    presence_penalty: float | None
    frequency_penalty: float | None
    logit_bias: dict[str, float] | None
    logprobs: bool | None
    top_logprobs: int | None
    stream_options: StreamOptions | None
    tools: list[dict[str, Any]] | None
    tool_choice: Literal["none", "auto", "required"] | dict[str, Any] | None
    parallel_tool_calls: bool | None
    response_format: dict[str, Any] | None
    user: str | None
    metadata: dict[str, str] | None
    extra_body: dict[str, Any] | None
