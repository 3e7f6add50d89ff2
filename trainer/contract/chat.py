"""What goes in and out of `python -m trainer.programs.chat`, one JSON object a line."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter

from trainer.contract.rows import Message
from trainer.frozen import Frozen

FinishReason = Literal["stop", "length", "cancelled"]


class AdapterRef(Frozen):
    """An adapter in PEFT's layout. The same `name` always means the same weights."""

    name: str = Field(pattern=r"^[A-Za-z0-9_-]+$")
    path: Path


class Sampling(Frozen):
    """How answers are drawn, with the meanings of OpenAI's chat completions."""

    max_tokens: int = Field(ge=1)
    """The most tokens of one answer; what the context has room for may be less."""
    temperature: float = Field(1.0, ge=0, le=2)
    """0 takes the likeliest token each time."""
    top_p: float = Field(1.0, gt=0, le=1)
    n: int = Field(1, ge=1)
    stop: tuple[str, ...] = ()
    seed: int | None = None
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: dict[int, float] = Field(default_factory=dict[int, float])
    top_logprobs: int | None = Field(None, ge=0, le=20)
    """How many likeliest tokens are shown beside each drawn one; None shows no log-probabilities."""


class Ask(Frozen):
    """Answer a conversation with the model of a base, or with an adapter on it."""

    type: Literal["ask"] = "ask"
    id: str
    base: Path
    adapter: AdapterRef | None = None
    messages: tuple[Message, ...] = Field(min_length=1)
    tools: tuple[dict[str, Any], ...] | None = None
    sampling: Sampling
    seconds: float | None = Field(None, gt=0)
    """How long the model may work on all answers; then they end with `length`. At least one token is drawn."""


class Cancel(Frozen):
    """Stop answering. A conversation that has paused is forgotten without a word."""

    type: Literal["cancel"] = "cancel"
    id: str


class Pause(Frozen):
    """Put the conversation aside after the next token, so that another can be asked; `Paused` or its end follows."""

    type: Literal["pause"] = "pause"
    id: str


class Resume(Frozen):
    """Resume a conversation that has paused."""

    type: Literal["resume"] = "resume"
    id: str


class PieceLogprob(Frozen):
    """A token as text and bytes with its natural log-probability, and the likeliest ones in its place."""

    token: str
    bytes: tuple[int, ...] | None
    logprob: float
    top: tuple[PieceLogprob, ...] = ()


class Began(Frozen):
    """The prompt was read; answers follow."""

    type: Literal["began"] = "began"
    id: str
    prompt_tokens: int


class AnswerPiece(Frozen):
    """The next piece of answer number `index`; text, log-probabilities, or both.

    A `tool_call` comes whole: `text` is its arguments as JSON.
    """

    type: Literal["piece"] = "piece"
    id: str
    index: int
    text: str
    kind: Literal["content", "reasoning", "tool_call"] = "content"
    tool: str = ""
    """The function of a call."""
    logprobs: tuple[PieceLogprob, ...] = ()


class Ended(Frozen):
    """Answer number `index` is complete. `tokens` counts what was drawn, the stop token too."""

    type: Literal["ended"] = "ended"
    id: str
    index: int
    finish_reason: FinishReason
    tokens: int


class Paused(Frozen):
    """The conversation is put aside; its next token is the same as without."""

    type: Literal["paused"] = "paused"
    id: str


class Resumed(Frozen):
    """The model works on the conversation again."""

    type: Literal["resumed"] = "resumed"
    id: str


class Done(Frozen):
    """All answers are complete."""

    type: Literal["done"] = "done"
    id: str


class AnswerRefused(Frozen):
    """No (further) answer. With `fault` it is the machine's, else the request's."""

    type: Literal["refused"] = "refused"
    id: str
    code: str
    message: str
    param: str | None = None
    fault: bool


Order = Annotated[Ask | Cancel | Pause | Resume, Field(discriminator="type")]
ORDER: TypeAdapter[Ask | Cancel | Pause | Resume] = TypeAdapter(Order)
ChatEvent = Annotated[
    Began | AnswerPiece | Ended | Paused | Resumed | Done | AnswerRefused, Field(discriminator="type")
]
CHAT_EVENT: TypeAdapter[Began | AnswerPiece | Ended | Paused | Resumed | Done | AnswerRefused] = TypeAdapter(ChatEvent)
