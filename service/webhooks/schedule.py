"""When a delivery that failed is tried again, when it is given up, and when its endpoint is."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

_MINUTE, _HOUR = 60.0, 3600.0
RETRY_DELAYS = (
    5.0,
    5 * _MINUTE,
    30 * _MINUTE,
    2 * _HOUR,
    5 * _HOUR,
    10 * _HOUR,
    14 * _HOUR,
    20 * _HOUR,
    24 * _HOUR,
)
"""Seconds from one try to the next: ten tries in a little over three days."""
_LONGEST = RETRY_DELAYS[-1]
DISABLE_AFTER = 120 * _HOUR
"""After how long without any success an endpoint is disabled."""
KEEP_OLD_SECRET = 24 * _HOUR
"""For how long a rotated secret signs next to the new one, if that was requested."""


def next_delay(tries: int, retry_after: str | None, delays: tuple[float, ...] = RETRY_DELAYS) -> float | None:
    """Return the seconds until the next try after `tries` failed ones (from 1); None if there is none.

    A receiver's Retry-After makes the wait longer, up to a day, never shorter.
    """
    if tries > len(delays):
        return None
    return max(delays[tries - 1], min(parse_retry_after(retry_after), _LONGEST))


def parse_retry_after(value: str | None) -> float:
    """Return the seconds that a Retry-After header asks for, as a number or a date (RFC 9110); 0 for anything else."""
    if not value:
        return 0.0
    try:
        seconds = float(value)
    except ValueError:
        return _seconds_until(value)
    return max(seconds, 0.0) if math.isfinite(seconds) else 0.0


def _seconds_until(date: str) -> float:
    try:
        moment = parsedate_to_datetime(date)
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        return max((moment - datetime.now(UTC)).total_seconds(), 0.0)
    except (ValueError, OverflowError):
        return 0.0
