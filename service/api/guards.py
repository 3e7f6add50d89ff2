"""What is refused before an endpoint sees it."""

from __future__ import annotations

from urllib.parse import unquote_to_bytes

from fastapi import Request

from service.kit.errors import InvalidRequest


def refuse_nul(request: Request) -> None:
    """Raise InvalidRequest for a NUL in the path or the query: PostgreSQL has no text with it."""
    if "\0" in request.scope["path"] or b"\0" in unquote_to_bytes(request.scope["query_string"]):
        raise InvalidRequest("The URL has a NUL character (%00): remove it.")
