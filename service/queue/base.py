"""The contracts of what Valkey does: a queue and a count of requests.

The queue carries job ids, nothing else, and may lose or repeat them; SQL is the truth.
"""

from __future__ import annotations

from collections.abc import Collection
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Protocol


class QueueUnavailable(Exception):
    """The queue's server does not answer; the message is a sentence that names its address, without secrets."""


class JobIdQueue(Protocol):
    """What the controller needs of a queue."""

    def push(self, job_id: str) -> None:
        """Send a job id to the workers. Sending one that waits already changes nothing. Raises QueueUnavailable."""
        ...

    def waiting_ids(self) -> AbstractSet[str]:
        """Return the ids that wait for a worker. Raises QueueUnavailable."""
        ...

    def remove_ids(self, job_ids: Collection[str]) -> None:
        """Take ids out that wait, and whatever is kept of them. Raises QueueUnavailable."""
        ...

    def check(self) -> None:
        """Raise QueueUnavailable unless the server answers."""
        ...


@dataclass(frozen=True)
class BucketState:
    """What came of taking from a bucket. Times are in seconds from now."""

    allowed: bool
    remaining: int
    full_in: float
    """When nothing will be missing from the bucket."""
    wait: float
    """When the bucket would hold enough, if the call was not allowed."""


class RateLimiter(Protocol):
    """Buckets that fill in a minute, shared by all processes. Safe to use from any thread."""

    def take(self, key: str, *, limit: int, cost: int = 1, force: bool = False) -> BucketState | None:
        """Take `cost` out of the bucket that holds `limit` (at least 1): all of it or nothing.

        With `force` it is taken even if there is less; a negative cost puts tokens back. None if the server does not
        answer: then nothing is counted.
        """
        ...
