"""The events of the program that answers, as OpenAI's chunks."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from service.chat.schemas import (
    Chunk,
    ChunkChoice,
    Delta,
    FinishReason,
    FunctionDelta,
    Logprobs,
    TokenLogprob,
    ToolCallDelta,
    TopLogprob,
    Usage,
)
from service.kit import ids
from trainer.contract import chat as events


@dataclass
class ChunkWriter:
    """Makes the chunks of one completion."""

    model: str
    id: str = field(default_factory=lambda: ids.new_id(ids.CHAT))
    created: int = field(default_factory=lambda: int(time.time()))
    prompt_tokens: int = 0
    drawn: int = 0
    call_counts: dict[int, int] = field(default_factory=dict[int, int])
    """The calls of each answer that has begun."""

    def make_chunks(self, event: events.Began | events.AnswerPiece | events.Ended | events.Done) -> list[Chunk]:
        """Return the chunks of an event; the last has the usage and no choice."""
        match event:
            case events.Began():
                self.prompt_tokens = event.prompt_tokens
                return []
            case events.AnswerPiece():
                return self._make_piece_chunks(event)
            case events.Ended():
                self.drawn += event.tokens
                return self._make_end_chunks(event)
            case events.Done():
                total = self.prompt_tokens + self.drawn
                usage = Usage(prompt_tokens=self.prompt_tokens, completion_tokens=self.drawn, total_tokens=total)
                return [self._make_chunk(usage=usage)]

    def _make_end_chunks(self, event: events.Ended) -> list[Chunk]:
        chunks = self._make_role_chunk(event.index)
        reason: FinishReason = "length" if event.finish_reason == "length" else "stop"
        if self.call_counts[event.index] and reason == "stop":
            reason = "tool_calls"
        return [*chunks, self._make_chunk(ChunkChoice(index=event.index, delta=Delta(), finish_reason=reason))]

    def _make_piece_chunks(self, piece: events.AnswerPiece) -> list[Chunk]:
        chunks = self._make_role_chunk(piece.index)
        delta = self._make_delta(piece)
        chunks.append(
            self._make_chunk(ChunkChoice(index=piece.index, delta=delta, logprobs=_show_logprobs(piece.logprobs)))
        )
        return chunks

    def _make_delta(self, piece: events.AnswerPiece) -> Delta:
        if piece.kind == "reasoning":
            return Delta(reasoning_content=piece.text)
        if piece.kind == "content":
            return Delta(content=piece.text)
        number = self.call_counts[piece.index]
        self.call_counts[piece.index] += 1
        function = FunctionDelta(name=piece.tool, arguments=piece.text)
        call = ToolCallDelta(index=number, id=ids.new_id(ids.TOOL_CALL), type="function", function=function)
        return Delta(tool_calls=[call])

    def _make_role_chunk(self, index: int) -> list[Chunk]:
        """Return the chunk that names the role, once an answer."""
        if index in self.call_counts:
            return []
        self.call_counts[index] = 0
        return [self._make_chunk(ChunkChoice(index=index, delta=Delta(role="assistant", content="")))]

    def _make_chunk(self, choice: ChunkChoice | None = None, usage: Usage | None = None) -> Chunk:
        choices = [] if choice is None else [choice]
        return Chunk(id=self.id, created=self.created, model=self.model, choices=choices, usage=usage)


def _show_logprobs(tokens: tuple[events.PieceLogprob, ...]) -> Logprobs | None:
    if not tokens:
        return None
    return Logprobs(
        content=[
            TokenLogprob(
                token=token.token,
                bytes=None if token.bytes is None else list(token.bytes),
                logprob=token.logprob,
                top_logprobs=[_show_top_logprob(alternative) for alternative in token.top],
            )
            for token in tokens
        ]
    )


def _show_top_logprob(token: events.PieceLogprob) -> TopLogprob:
    byte_values = None if token.bytes is None else list(token.bytes)
    return TopLogprob(token=token.token, bytes=byte_values, logprob=token.logprob)
