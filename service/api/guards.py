"""What is refused before an endpoint sees it."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator
from urllib.parse import unquote_to_bytes

from anyio import CapacityLimiter
from fastapi import Request

from service.kit.errors import InvalidRequest, TooLarge

MAX_JSON_BYTES = 1 << 20
READING, WRITING = 4, 6
"""How many requests read, and write, at once: together fewer than the pool has connections, and there are threads.

Apart, so that no reading waits behind a queue for SQLite's one writer. More readers than these only take Python's one
lock from each other: at ten, a machine near its limit spent its time on the changes between them and fell behind.
"""


class NulInUrl(InvalidRequest):
    """The URL has a NUL character."""

    def __init__(self) -> None:
        super().__init__("The URL has a NUL character (%00): remove it.")


class BodyTooLarge(TooLarge):
    """The body is larger than that of a request may be."""

    def __init__(self) -> None:
        super().__init__(f"The body is larger than {MAX_JSON_BYTES} bytes, the most for a request.")


async def refuse_nul(request: Request) -> None:
    """Raise InvalidRequest for a NUL in the path or the query: PostgreSQL has no text with it."""
    if "\0" in request.scope["path"] or b"\0" in unquote_to_bytes(request.scope["query_string"]):
        raise NulInUrl


async def take_turn(request: Request) -> AsyncIterator[None]:
    """Let a request in once few enough of its kind are at work; it is over before the answer is sent.

    An endpoint that is no coroutine has a connection from its first query until its session is closed on the event
    loop. With more requests than connections, all threads could come to wait for connections.
    """
    if inspect.iscoroutinefunction(inspect.unwrap(request.scope["endpoint"])):
        yield
        return
    reading: CapacityLimiter = request.app.state.reading
    writing: CapacityLimiter = request.app.state.writing
    async with reading if request.method in ("GET", "HEAD") else writing:
        yield
