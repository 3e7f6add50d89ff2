"""A stream ends with a reader who takes nothing, closes its generator however it ends, and waits for a slow reader."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

import pytest
from starlette.requests import ClientDisconnect
from starlette.types import Message

from service.kit.bounded_stream import BoundedStream


class Source:
    """Pieces of Chinese text; it notes when it is closed."""

    def __init__(self, pieces: int) -> None:
        self.pieces = pieces
        self.closed = False

    async def read(self) -> AsyncGenerator[bytes]:
        try:
            for number in range(self.pieces):
                yield f"第{number}块\n".encode()
        finally:
            await asyncio.sleep(0)  # what it gives back may take a moment
            self.closed = True


def stream(source: Source, seconds: float) -> BoundedStream:
    return BoundedStream(source.read(), media_type="text/plain", stall_seconds=seconds)


def test_a_reader_who_takes_nothing_ends_the_stream() -> None:
    async def story() -> None:
        source = Source(1000)

        async def send(message: Message) -> None:
            if b"3" in message.get("body", b""):
                await asyncio.Event().wait()

        with pytest.raises(ClientDisconnect):
            await stream(source, 0.05).stream_response(send)
        assert source.closed

    asyncio.run(asyncio.wait_for(story(), 20))


@pytest.mark.slow
def test_a_reader_who_is_slow_but_reads_gets_everything() -> None:
    """The bound is for one piece, not for all of them."""

    async def story() -> None:
        source, sent = Source(8), list[bytes]()

        async def send(message: Message) -> None:
            await asyncio.sleep(0.2)
            sent.append(message.get("body", b""))

        await stream(source, 1.0).stream_response(send)
        assert b"".join(sent).decode() == "".join(f"第{number}块\n" for number in range(8))
        assert source.closed

    asyncio.run(asyncio.wait_for(story(), 20))


def test_a_caller_who_hangs_up_while_a_piece_is_sent_closes_the_source_at_once() -> None:
    async def story() -> None:
        source, blocked = Source(8), asyncio.Event()

        async def send(message: Message) -> None:
            if message["type"] == "http.response.body":
                blocked.set()
                await asyncio.Event().wait()

        task = asyncio.create_task(stream(source, 60).stream_response(send))
        await blocked.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert source.closed

    asyncio.run(asyncio.wait_for(story(), 20))
