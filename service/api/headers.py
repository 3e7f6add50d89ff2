"""Headers of every answer that keep a browser from making more of it than it is."""

from __future__ import annotations

from collections.abc import Iterable

from starlette.responses import Response

_NOTHING = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
SECURITY_HEADERS: tuple[tuple[bytes, bytes], ...] = (
    (b"x-content-type-options", b"nosniff"),
    (b"content-security-policy", _NOTHING.encode()),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
)
"""A page that needs more than nothing brings a policy of its own, which stays."""

EXPOSED_HEADERS = (
    "x-request-id", "x-should-retry", "retry-after", "retry-after-ms", "openai-processing-ms", "content-disposition",
    "content-range", "x-ratelimit-limit-requests", "x-ratelimit-remaining-requests", "x-ratelimit-reset-requests",
    "x-ratelimit-limit-tokens", "x-ratelimit-remaining-tokens", "x-ratelimit-reset-tokens",
)  # fmt: skip
"""What scripts of other origins may read, if a setting lets them call the API at all."""


def missing_security_headers(headers: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """Return those that an answer does not have yet. Names are in small letters."""
    present = {name for name, _ in headers}
    return [header for header in SECURITY_HEADERS if header[0] not in present]


def raw_answer(status_line: bytes, answer: Response, request_id: str) -> bytes:
    """Return an answer that closes its connection, as bytes, for when no application can send it."""
    answer.headers.update({"x-request-id": request_id, "connection": "close"})
    headers = [*answer.raw_headers, *missing_security_headers(answer.raw_headers)]
    return status_line + b"".join(b"%s: %s\r\n" % header for header in headers) + b"\r\n" + bytes(answer.body)
