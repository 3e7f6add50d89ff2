"""A stream whose first chunk takes a while: headers go out, then comments until it is there."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from types import TracebackType

from starlette.requests import Request

from service.chat.schemas import Chunk
from service.kit.attended import run_while_connected

WAITING = b": waiting\n\n"
"""A comment of server-sent events, which clients ignore: proxies and clients see that the answer is still to come."""
_REFUSAL_SECONDS = 1.0
"""How long a refusal may take and still have its own status; after that it is an event."""
_COMMENT_SECONDS = 10.0


class AwaitedStream:
    """Chunks whose first one is awaited in the background. Close it: that ends the work."""

    def __init__(self, chunks: AsyncGenerator[Chunk]) -> None:
        self._chunks = chunks
        self._first = asyncio.ensure_future(anext(chunks, None))

    async def __aenter__(self) -> AwaitedStream:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop_work()

    async def wait_for_refusal(self, request: Request) -> None:
        """Wait a moment for the first chunk. Raises what refuses the request, or ClientDisconnect."""
        try:
            await run_while_connected(request, self._wait_for_first(_REFUSAL_SECONDS))
            if self._first.done():
                self._first.result()
        except BaseException:
            await self.stop_work()
            raise

    async def write_comments(self) -> AsyncGenerator[bytes]:
        """Yield a comment now and then, until the first chunk is there."""
        while not self._first.done():
            yield WAITING
            await self._wait_for_first(_COMMENT_SECONDS)

    async def iterate_chunks(self) -> AsyncGenerator[Chunk]:
        """Yield the chunks. Raises what ends them."""
        first = await self._first
        if first is not None:
            yield first
            async with aclosing(self._chunks) as rest:
                async for chunk in rest:
                    yield chunk

    async def stop_work(self) -> None:
        """End the work, whether it has begun or waits."""
        self._first.cancel()
        # Until it has ended, the generator is running and cannot be closed.
        with suppress(asyncio.CancelledError, Exception):
            await self._first
        await self._chunks.aclose()

    async def _wait_for_first(self, seconds: float) -> None:
        await asyncio.wait({self._first}, timeout=seconds)
