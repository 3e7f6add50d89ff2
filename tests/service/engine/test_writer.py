"""The program's pieces as OpenAI's chunks, streamed and joined."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

from service.chat.gather import join_chunks, write_event
from service.chat.schemas import ChatCompletion, Chunk
from service.engine.writer import ChunkWriter
from trainer.contract.chat import AnswerPiece, Began, Done, Ended, PieceLogprob

HALF = PieceLogprob(token="\ufffd", bytes=(0xF0, 0x9F), logprob=-1.0)
PIECES = [
    AnswerPiece(id="a", index=0, text="想一", kind="reasoning", logprobs=(HALF,)),
    AnswerPiece(id="a", index=0, text="想", kind="reasoning"),
    AnswerPiece(id="a", index=0, text="好的"),
    AnswerPiece(id="a", index=0, text='{"city": "北京"}', kind="tool_call", tool="天气"),
    AnswerPiece(id="a", index=0, text="{}", kind="tool_call", tool="time"),
    AnswerPiece(id="a", index=1, text="没有"),
]


def write_chunks(finish_reason: Any = "stop") -> list[Chunk]:
    writer = ChunkWriter("tiny")
    ends = [Ended(id="a", index=index, finish_reason=finish_reason, tokens=3) for index in (0, 1)]
    events = [Began(id="a", prompt_tokens=2), *PIECES, *ends, Done(id="a")]
    return [chunk for event in events for chunk in writer.make_chunks(event)]


def join(chunks: list[Chunk]) -> ChatCompletion:
    async def iterate() -> AsyncIterator[Chunk]:
        for chunk in chunks:
            yield chunk

    return asyncio.run(join_chunks(iterate()))


def test_thoughts_text_and_calls_are_joined() -> None:
    first, second = join(write_chunks()).choices
    assert (first.message.reasoning_content, first.message.content) == ("想一想", "好的")
    assert [(call.function.name, call.function.arguments) for call in first.message.tool_calls or ()] == [
        ("天气", '{"city": "北京"}'),
        ("time", "{}"),
    ]
    assert len({call.id for call in first.message.tool_calls or ()}) == 2
    assert (first.finish_reason, second.finish_reason) == ("tool_calls", "stop")
    # What an answer has not is not in it: clients of OpenAI's look whether the member is there.
    assert second.message.model_dump() == {"role": "assistant", "content": "没有", "refusal": None}
    assert join(write_chunks("length")).choices[0].finish_reason == "length"


def test_a_stream_says_the_name_of_a_call_once() -> None:
    deltas = [chunk.choices[0].delta for chunk in write_chunks() if chunk.choices and chunk.choices[0].index == 0]
    assert deltas[0].role == "assistant"
    calls = [delta.tool_calls[0] for delta in deltas if delta.tool_calls]
    assert [(call.index, call.function and call.function.name) for call in calls] == [(0, "天气"), (1, "time")]
    assert [delta.reasoning_content for delta in deltas if delta.reasoning_content] == ["想一", "想"]


def test_half_of_a_character_has_its_bytes_and_logprobs_their_refusal() -> None:
    chunk = next(chunk for chunk in write_chunks() if chunk.choices and chunk.choices[0].logprobs)
    logprobs = json.loads(write_event(chunk).removeprefix(b"data: "))["choices"][0]["logprobs"]
    assert (logprobs["content"][0]["bytes"], logprobs["refusal"]) == ([0xF0, 0x9F], None)
