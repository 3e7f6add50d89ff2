"""Errors of limits: 429 in OpenAI's two kinds, the one worth waiting a moment for and the one that is not."""

from __future__ import annotations

import math

from service.kit.errors import ServiceError

FREE_SOME = "delete files, jobs or models that are not needed, or ask an administrator for more."


class QuotaExceeded(ServiceError):
    """The project has used up what it may use; the same request is refused until something is freed or raised."""

    status = 429
    type = "insufficient_quota"
    code = "insufficient_quota"
    retry = False


class NoRoom(QuotaExceeded):
    """The project may not store so many bytes more; `free` is how many it may."""

    def __init__(self, what: str, free: int) -> None:
        super().__init__(f"{what} is larger than the {free} bytes that this project may still store: {FREE_SOME}")


class RateLimited(ServiceError):
    """Too much at once; `seconds` from now it would be let through. None: never, it asks for too much by itself."""

    status = 429
    code = "rate_limit_exceeded"

    def __init__(self, message: str, *, kind: str, seconds: float | None) -> None:
        super().__init__(message)
        self.type = kind
        self.retry = seconds is not None
        if seconds is not None:
            milliseconds = max(math.ceil(seconds * 1000), 1)
            self.headers = {
                "retry-after": str(math.ceil(milliseconds / 1000)),
                "retry-after-ms": str(milliseconds),
            }
