"""What is refused before an endpoint sees it."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator
from urllib.parse import unquote_to_bytes

from fastapi import Request

from service.keys.service import Principal
from service.kit.errors import InvalidRequest, TooLarge

MAX_JSON_BYTES = 1 << 20
MAX_PARAMETERS = 256
"""The most parameters of a query: far more than any operation has."""


class NulInUrl(InvalidRequest):
    """The URL has a NUL character."""

    def __init__(self) -> None:
        super().__init__("The URL has a NUL character (%00): remove it.")


class TooManyParameters(InvalidRequest):
    """The query has more parameters than any operation takes."""

    def __init__(self) -> None:
        super().__init__(f"The URL's query has more than {MAX_PARAMETERS} parameters, the most that are read.")


class BodyTooLarge(TooLarge):
    """The body is larger than that of a request may be."""

    def __init__(self) -> None:
        super().__init__(f"The body is larger than {MAX_JSON_BYTES} bytes, the most for a request.")


def refuse_unreadable_url(request: Request) -> None:
    """Raise InvalidRequest for a query of too many parameters, and for a NUL: PostgreSQL has no text with it."""
    if request.scope["query_string"].count(b"&") >= MAX_PARAMETERS:
        raise TooManyParameters
    if "\0" in request.scope["path"] or b"\0" in unquote_to_bytes(request.scope["query_string"]):
        raise NulInUrl


async def take_turn(request: Request) -> AsyncIterator[None]:
    """Let a request in at its project's turn; the turn is over before the answer is sent.

    An endpoint that is not a coroutine has a connection from its first query until its session is closed on the event
    loop. With more requests than connections, all threads could come to wait for connections. Raises TurnsExhausted.
    """
    principal: Principal | None = getattr(request.state, "principal", None)
    if principal is None or inspect.iscoroutinefunction(inspect.unwrap(request.scope["endpoint"])):
        yield
        return
    async with request.app.state.admission.choose_turns(request).hold_turn(principal.project_id):
        yield
