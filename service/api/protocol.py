"""HTTP as the API's server speaks it, with bounds: the head of a request has a size, and a request must arrive."""

from __future__ import annotations

import asyncio
from typing import ClassVar

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from service.api.errors import unreadable_request
from service.kit import ids


class BoundedHttp(HttpToolsProtocol):
    """Ends the connection of a client whose request's head is endless, or that leaves its request unfinished.

    Neither needs a key, so that nothing else stops a stranger who opens many such connections. What an unfinished
    upload has written is dropped, as that of one which was broken off.
    """

    head_bytes: ClassVar[int] = 64 << 10
    """The most of the request line and all headers."""
    window: ClassVar[float] = 60.0
    """Seconds in which a head must have come, and in which some of a body must."""
    least_bytes: ClassVar[int] = 1 << 10
    """How much of a body must come in each window; while the service itself is busy nothing needs to."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] - as in uvicorn's own
        """Wait for the first request."""
        super().connection_made(transport)
        self._timer: asyncio.TimerHandle | None = None
        self._received = self._head = self._passed = 0
        self._in_head = True
        self._await_more()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._stop_waiting()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take the next bytes of a request."""
        self._received += len(data)
        passed = self._passed
        super().data_received(data)
        if not self._in_head or self._passed != passed or self.transport.is_closing():
            return
        self._head += len(data)
        if self._head > self.head_bytes:
            self.send_400_response(f"The headers of the request are larger than {self.head_bytes} bytes.")

    def send_400_response(self, msg: str) -> None:
        """Answer what is no proper request in the form of every other error, and end the connection."""
        request_id = ids.new_request_id()
        self.logger.info("a request that cannot be read was refused, %s: %s", request_id, msg)
        answer = unreadable_request(msg)
        answer.headers.update({"x-request-id": request_id, "connection": "close"})
        head = b"".join(b"%s: %s\r\n" % header for header in answer.raw_headers)
        self.transport.write(STATUS_LINE[400] + head + b"\r\n" + bytes(answer.body))
        self.transport.close()

    def on_message_begin(self) -> None:
        """Begin a request."""
        self._await_more()
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """Go on with the body."""
        self._in_head = False
        self._passed += 1
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """End a request: how long its answer takes is not the client's doing."""
        self._in_head, self._head = True, 0
        self._passed += 1
        self._stop_waiting()
        super().on_message_complete()

    def _await_more(self) -> None:
        self._stop_waiting()
        self._received = 0
        self._timer = self.loop.call_later(self.window, self._end_unfinished)

    def _stop_waiting(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _end_unfinished(self) -> None:
        if self._in_head or (self._received < self.least_bytes and not self.flow.read_paused):
            self.logger.info("a request that did not arrive was ended")
            self.transport.close()
        else:
            self._await_more()
