"""What is refused before an endpoint sees it: bodies without end, and text that SQL cannot hold."""

from __future__ import annotations

from urllib.parse import unquote_to_bytes

from fastapi import Request
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.kit.errors import InvalidRequest

MAX_BODY_BYTES = 1 << 20
STREAMED = frozenset({"/v1/files"})
"""Paths that read their body piece by piece and have a limit of their own."""


class BodyLimit:
    """Breaks off a body that is too large while it comes in: FastAPI reads JSON whole, and before it asks for a key."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        size = 0

        async def limited() -> Message:
            nonlocal size
            message = await receive()
            size += len(message.get("body", b""))
            if size > MAX_BODY_BYTES:
                raise HTTPException(413, f"The body is larger than {MAX_BODY_BYTES} bytes; only uploads may be.")
            return message

        streamed = scope["type"] != "http" or scope["path"] in STREAMED
        await self._app(scope, receive if streamed else limited, send)


def refuse_nul(request: Request) -> None:
    """Raise InvalidRequest for a NUL in the path or the query: PostgreSQL has no text with it."""
    if "\0" in request.scope["path"] or b"\0" in unquote_to_bytes(request.scope["query_string"]):
        raise InvalidRequest("The URL has a NUL character (%00): remove it.")
