"""What is refused before an endpoint sees it."""

from __future__ import annotations

from urllib.parse import unquote_to_bytes

from fastapi import Request

from service.kit.errors import InvalidRequest, TooLarge

MAX_JSON_BYTES = 1 << 20


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
