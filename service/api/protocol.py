"""HTTP as the API's server speaks it, with bounds: the head of a request has a size, and a request must arrive."""

from __future__ import annotations

import asyncio
import logging
from typing import Any, ClassVar

import httptools
import uvicorn
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol
from uvicorn.server import ServerState

from service.api.connections import OpenConnections
from service.api.errors import unreadable_request
from service.api.headers import raw_answer
from service.api.heads import MOST_HEADERS, UnreadableRequest, check_head
from service.kit import ids
from service.kit.log import SparseLog

_log = logging.getLogger(__name__)
_MOST_PIPELINED = 8
"""How many requests of one connection wait for the answer to the one before them."""


class BoundedHttp(HttpToolsProtocol):
    """Ends the connection of a client with an endless head, or that leaves its request unfinished.

    Neither needs a key, so that nothing else stops a stranger who opens many such connections. What an unfinished
    upload has written is dropped, as for an interrupted one.
    """

    head_bytes: ClassVar[int] = 64 << 10
    """The most of the request line and all headers, and of what frames a body between two of its bytes."""
    window: ClassVar[float] = 60.0
    """Seconds in which a head must have come, and in which some of a body must."""
    least_bytes: ClassVar[int] = 1 << 10
    """How much of a body must come in each window; while the service itself is busy nothing needs to."""
    drain_seconds: ClassVar[float] = 5.0
    """How long the rest of a body is read, and dropped, once the request has been answered without it."""
    _unreadable: ClassVar[SparseLog] = SparseLog(_log, logging.INFO)
    _unfinished: ClassVar[SparseLog] = SparseLog(_log, logging.INFO)

    def __init__(
        self,
        config: uvicorn.Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
        *,
        admission: tuple[OpenConnections, str] | None = None,
    ) -> None:
        """`admission` has the register with the connection's place, and the address that the place is counted under."""
        super().__init__(config, server_state, app_state, _loop)
        self._open, self._host = admission or (None, "")
        self._timer: asyncio.TimerHandle | None = None
        self._received = self._head = self._passed = self._header_bytes = 0
        self._in_head = True
        self._refusal: UnreadableRequest | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] - as in uvicorn's own
        """Wait for the first request."""
        super().connection_made(transport)
        if self._open is not None:
            self._open.register_connection(self, self._host)
        self._await_more()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        if self._open is not None:
            self._open.unregister_connection(self)
        super().connection_lost(exc)

    def make_room(self) -> None:
        """End a connection that waits for a request, for another one to have its place."""
        self.transport.close()

    def data_received(self, data: bytes) -> None:
        """Take the next bytes of a request."""
        if self._refusal is not None:
            return
        # As uvicorn's own `data_received`, which this one replaces.
        self._unset_keepalive_if_required()
        self._received += len(data)
        passed_before = self._passed
        try:
            self._feed_parser(data)
        except httptools.HttpParserError as error:
            self._refuse_request(self._refusal or _as_refusal(error))
            return
        # The parser got on: what came belongs to a head or a body that is counted elsewhere.
        if self._passed != passed_before or self.transport.is_closing():
            self._head = 0
            return
        self._head += len(data)
        # Counted here as well as in `on_header`: the parser reports a header only once it is complete, and an endless
        # one never is.
        if self._head > self.head_bytes:
            self._refuse_request(self._too_large())

    def _too_large(self) -> UnreadableRequest:
        part = "headers of the request" if self._in_head else "chunks' extensions or the trailers"
        return UnreadableRequest(400, f"The {part} are larger than {self.head_bytes} bytes.")

    def _feed_parser(self, data: bytes) -> None:
        """Feed the parser. It stops at a request for another protocol, which is answered as if it asked for none."""
        while data and self.parser is not None:
            try:
                self.parser.feed_data(data)
            except httptools.HttpParserUpgrade as upgrade:
                data = data[upgrade.args[0] :]
            else:
                return

    def _refuse_request(self, refusal: UnreadableRequest) -> None:
        """Answer what is not a proper request in the form of every other error, and end the connection.

        Requests before it that are still being answered get their answers, whole and without this one among them.
        """
        self._refusal = refusal
        self._stop_waiting()
        request_id = ids.new_request_id()
        self._unreadable.log_sparsely("a request that cannot be read was refused, %s: %s", request_id, refusal.sentence)
        # They get their answers, in order; `on_response_complete` ends the connection then, without an answer to this
        # one.
        if self._awaits_answers():
            return
        # Into the middle of an answer nothing can be written.
        if not self.cycle or self.cycle.response_complete or not self.cycle.response_started:
            answer = unreadable_request(refusal.status, refusal.sentence)
            self.transport.write(raw_answer(STATUS_LINE[refusal.status], answer, request_id))
        self.transport.close()

    def _awaits_answers(self) -> bool:
        """Return whether a complete request is unanswered; an interrupted one behind it is dropped."""
        if not self.cycle or self.cycle.response_complete:
            return False
        if self.cycle.more_body and self.pipeline:
            self.pipeline.popleft()
            return True
        return not self.cycle.more_body

    def on_message_begin(self) -> None:
        self._await_more()
        self._header_bytes = 0
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header. A trailer is dropped: nobody reads it, and it must not pass for a header."""
        # Trailers may not change what the head has settled (RFC 9110, 6.5.1).
        if not self._in_head:
            return
        if len(self.headers) >= MOST_HEADERS:
            self._raise_refusal(UnreadableRequest(400, f"The request has more than {MOST_HEADERS} headers."))
        self._header_bytes += len(name) + len(value)
        if self._header_bytes > self.head_bytes:  # a head that came at once is not counted as it comes
            self._raise_refusal(self._too_large())
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Check the head; the body follows."""
        self._in_head = False
        self._passed += 1
        parser = self.parser
        assert parser is not None, "it is there until the connection is lost"
        try:
            # Two lengths or a bad Host are read differently by proxies, which is how requests are smuggled.
            check_head(parser.get_http_version(), self.url, self.headers, upgrade=parser.should_upgrade())
        except UnreadableRequest as refusal:
            self._raise_refusal(refusal)
        # Each waiting request is held in memory with its head, and none of them has shown a key yet.
        if len(self.pipeline) >= _MOST_PIPELINED:
            self._raise_refusal(UnreadableRequest(400, "Too many requests were sent without waiting for an answer."))
        if self._open is not None:
            self._open.note_busy(self)
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Take some of the body."""
        self._passed += 1
        super().on_body(body)

    def on_message_complete(self) -> None:
        """End a request: how long its answer takes is not the client's doing."""
        self._in_head = True
        self._passed += 1
        # The window bounds the client; from here on the service is at work.
        self._stop_waiting()
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """Serve the next request, or wait for one."""
        more = bool(self.pipeline)
        super().on_response_complete()
        if more or self.transport.is_closing():
            return
        if self._refusal is not None:
            self.transport.close()
            return
        if self._open is not None:
            self._open.note_idle(self)
        # The answer was sent before the whole body came. Closing at once would reset the connection, and the client
        # would lose the answer.
        if self.cycle.more_body:
            self._stop_waiting()
            self._timer = self.loop.call_later(self.drain_seconds, self.transport.close)

    def _raise_refusal(self, refusal: UnreadableRequest) -> None:
        """Leave the parser, which wraps what a callback raises in an error of its own."""
        self._refusal = refusal
        raise refusal

    def _await_more(self) -> None:
        self._stop_waiting()
        self._received = 0
        self._timer = self.loop.call_later(self.window, self._end_unfinished)

    def _stop_waiting(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _end_unfinished(self) -> None:
        # While reading is paused it is the service that is slow, not the client.
        if self._in_head or (self._received < self.least_bytes and not self.flow.read_paused):
            self._unfinished.log_sparsely("a request that did not arrive was ended")
            self.transport.close()
        else:
            self._await_more()


def _as_refusal(error: httptools.HttpParserError) -> UnreadableRequest:
    if isinstance(error, httptools.HttpParserCallbackError):
        return UnreadableRequest(400, "The request target cannot be read.")
    if "PRI" in str(error):  # how HTTP/2 begins, sent by a client that did not ask for it first
        return UnreadableRequest(505, "HTTP/2 is not served on this connection: send HTTP/1.1.")
    status = 505 if str(error) == "Invalid HTTP version" else 400
    return UnreadableRequest(status, f"This is not a valid request of HTTP/1.1: {error}.")
