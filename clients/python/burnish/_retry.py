"""The one rule about trying again."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass
from email.utils import parsedate_to_datetime

import httpx

Failure = httpx.Response | httpx.RequestError

LONGEST_WAIT = 60.0
"""Seconds. A server that asks for a longer pause gets no second request: the caller decides."""

_HOPELESS = (httpx.UnsupportedProtocol, httpx.LocalProtocolError, httpx.TooManyRedirects, httpx.DecodingError)


@dataclass(frozen=True)
class RetryPolicy:
    """How often, after what, and after how long a request is sent again."""

    max_retries: int
    base: float = 0.5
    cap: float = 8.0

    def delay_before_retry(self, attempt: int, failure: Failure) -> float | None:
        """Return the seconds to wait after failed attempt number `attempt` (from 0), None to give up."""
        if attempt >= self.max_retries or not _worth_retrying(failure):
            return None
        requested_delay = _retry_after(failure.headers) if isinstance(failure, httpx.Response) else None
        if requested_delay is not None:
            return requested_delay if requested_delay <= LONGEST_WAIT else None
        # Up to a quarter less, so that many clients do not return at the same moment.
        return min(self.base * 2.0**attempt, self.cap) * random.uniform(0.75, 1.0)  # noqa: S311


def _worth_retrying(failure: Failure) -> bool:
    if not isinstance(failure, httpx.Response):
        return not isinstance(failure, _HOPELESS)
    retry_header = failure.headers.get("x-should-retry")
    if retry_header in ("true", "false"):
        return retry_header == "true"
    return failure.status_code in (408, 409, 429) or failure.status_code >= 500


def _retry_after(headers: httpx.Headers) -> float | None:
    """Read `retry-after-ms`, then `retry-after` in seconds or as a date (RFC 9110, 10.2.3)."""
    milliseconds = _parse_seconds(headers.get("retry-after-ms"))
    if milliseconds is not None:
        return milliseconds / 1000
    text = headers.get("retry-after")
    seconds = _parse_seconds(text)
    if seconds is not None or text is None:
        return seconds
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
    except ValueError:
        return None


def _parse_seconds(text: str | None) -> float | None:
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if 0 <= value < float("inf") else None
