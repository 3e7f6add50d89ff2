"""The limits as values."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Literal

from service.kit.settings import Settings

LimitName = Literal[
    "stored_bytes",
    "running_jobs",
    "queued_jobs",
    "training_minutes",
    "requests_per_minute",
    "tokens_per_minute",
]


@dataclass(frozen=True)
class QuotaLimits:
    """What a project may use. None is unlimited."""

    stored_bytes: int | None = None
    running_jobs: int | None = None
    queued_jobs: int | None = None
    """Jobs that have not started or are paused."""
    training_minutes: int | None = None
    """In a calendar month of UTC, all attempts at jobs together."""
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None

    @classmethod
    def from_settings(cls, settings: Settings) -> QuotaLimits:
        """Return the limits of projects that have none of their own."""
        return cls(
            stored_bytes=settings.quota_stored_bytes,
            running_jobs=settings.quota_running_jobs,
            queued_jobs=settings.quota_queued_jobs,
            training_minutes=settings.quota_training_minutes,
            requests_per_minute=settings.rate_requests_per_minute,
            tokens_per_minute=settings.rate_tokens_per_minute,
        )


@dataclass(frozen=True)
class QuotaUsage:
    """What a project uses now, and when the month ends (unix seconds)."""

    stored_bytes: int
    running_jobs: int
    queued_jobs: int
    training_minutes: float
    month_ends_at: float


UNLIMITED = QuotaLimits()
NAMES: tuple[str, ...] = tuple(field.name for field in fields(QuotaLimits))
