"""A stream's chunks: joined into one completion, or written as server-sent events."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from service.chat.errors import AnswerFailed
from service.chat.schemas import (
    AnswerMessage,
    CalledFunction,
    ChatCompletion,
    Choice,
    Chunk,
    ChunkChoice,
    FinishReason,
    Logprobs,
    TokenLogprob,
    ToolCall,
    Usage,
)

DONE = b"data: [DONE]\n\n"


async def join_chunks(chunks: AsyncIterator[Chunk]) -> ChatCompletion:
    """Join a stream that counts its tokens. Raises AnswerFailed if it ends early."""
    answers: dict[int, _JoinedAnswer] = {}
    last: Chunk | None = None
    usage: Usage | None = None
    async for chunk in chunks:
        last, usage = chunk, chunk.usage or usage
        for piece in chunk.choices:
            answers.setdefault(piece.index, _JoinedAnswer()).add_piece(piece)
    if last is None or usage is None:
        raise AnswerFailed("The answer was cut off before its end. Send the request again.")
    choices = [answers[index].make_choice(index) for index in sorted(answers)]
    return ChatCompletion(id=last.id, created=last.created, model=last.model, choices=choices, usage=usage)


def write_event(chunk: Chunk) -> bytes:
    """Write a chunk as OpenAI does: what is null is left out, except for `finish_reason` and `logprobs.refusal`."""
    data = chunk.model_dump(exclude_none=True)
    for choice in data["choices"]:
        choice.setdefault("finish_reason", None)
        if "logprobs" in choice:
            choice["logprobs"].setdefault("refusal", None)
    return f"data: {json.dumps(data, ensure_ascii=False)}\n\n".encode()


@dataclass
class _JoinedAnswer:
    text: list[str] = field(default_factory=list[str])
    thoughts: list[str] = field(default_factory=list[str])
    calls: dict[int, ToolCall] = field(default_factory=dict[int, ToolCall])
    logprobs: list[TokenLogprob] = field(default_factory=list[TokenLogprob])
    has_logprobs: bool = False
    reason: FinishReason | None = None

    def add_piece(self, piece: ChunkChoice) -> None:
        self.text.append(piece.delta.content or "")
        self.thoughts.append(piece.delta.reasoning_content or "")
        self.reason = piece.finish_reason or self.reason
        if piece.logprobs is not None:
            self.has_logprobs = True
            self.logprobs += piece.logprobs.content or []
        for delta in piece.delta.tool_calls or ():
            call = self.calls.setdefault(
                delta.index, ToolCall(id=delta.id or "", function=CalledFunction(name="", arguments=""))
            )
            function = delta.function
            call.id = delta.id or call.id
            call.function.name += (function and function.name) or ""
            call.function.arguments += (function and function.arguments) or ""

    def make_choice(self, index: int) -> Choice:
        if self.reason is None:
            raise AnswerFailed("The answer was cut off before its end. Send the request again.")
        text = "".join(self.text)
        calls = [self.calls[number] for number in sorted(self.calls)]
        message = AnswerMessage(
            content=text if text or not calls else None,
            reasoning_content="".join(self.thoughts) or None,
            tool_calls=calls or None,
        )
        logprobs = Logprobs(content=self.logprobs) if self.has_logprobs else None
        return Choice(index=index, message=message, finish_reason=self.reason, logprobs=logprobs)
