"""The contract of the queue: it carries job ids, nothing else, and may lose or repeat them; SQL is the truth."""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from typing import Protocol


class QueueUnavailable(Exception):
    """The queue's server does not answer; the message is a sentence that names its address, without secrets."""


class JobQueue(Protocol):
    """What the controller needs of a queue."""

    def push(self, job_id: str) -> None:
        """Send a job id to the workers. Sending one that waits already changes nothing. Raises QueueUnavailable."""
        ...

    def waiting(self) -> AbstractSet[str]:
        """Return the ids that wait for a worker. Raises QueueUnavailable."""
        ...

    def check(self) -> None:
        """Raise QueueUnavailable unless the server answers."""
        ...
