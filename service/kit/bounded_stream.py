"""An answer that is streamed to a reader who may stop reading."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable

from anyio import CancelScope, move_on_after
from starlette.requests import ClientDisconnect
from starlette.responses import StreamingResponse
from starlette.types import Message, Send

_CLOSE_SECONDS = 10.0


class BoundedStream(StreamingResponse):
    """Ends if its reader takes nothing for `stall_seconds`, so that whoever does not read holds nothing for long.

    It keeps no more than the server's buffer of 64 KiB. However it ends, its generator is closed at once: what that
    holds must not wait for the garbage collector. `stop_work` ends what was begun before the generator.
    """

    def __init__(
        self,
        content: AsyncGenerator[bytes],
        *,
        media_type: str,
        stall_seconds: float,
        headers: dict[str, str] | None = None,
        stop_work: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        super().__init__(content, media_type=media_type, headers=headers)
        self._stop_work = stop_work
        self._content = content
        self._stall_seconds = stall_seconds

    async def stream_response(self, send: Send) -> None:
        """Send head and body. Raises ClientDisconnect if the reader takes nothing."""
        try:
            await self._send_in_time(
                send, {"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers}
            )
            async for chunk in self._content:
                await self._send_in_time(send, {"type": "http.response.body", "body": chunk, "more_body": True})
            await self._send_in_time(send, {"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            # The task may be cancelled; the generator must release its resources all the same.
            with CancelScope(shield=True), move_on_after(_CLOSE_SECONDS):
                await self._content.aclose()
                # A generator that was never begun runs nothing when it is closed.
                if self._stop_work is not None:
                    await self._stop_work()

    async def _send_in_time(self, send: Send, message: Message) -> None:
        with move_on_after(self._stall_seconds) as waiting:
            await send(message)
        if waiting.cancelled_caught:
            raise ClientDisconnect
