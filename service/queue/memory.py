"""A queue inside one process, for tests of what stands around it."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Collection
from collections.abc import Set as AbstractSet


class MemoryJobQueue:
    """A `JobIdQueue` without a server: ids wait in their order until `pop`."""

    def __init__(self) -> None:
        self._ids: deque[str] = deque()
        self._lock = threading.Lock()

    def push(self, job_id: str) -> None:
        """Append an id unless it waits already; see `JobIdQueue.push`."""
        with self._lock:
            if job_id not in self._ids:
                self._ids.append(job_id)

    def pop(self) -> str | None:
        """Take the oldest id, as a worker does. None if none waits."""
        with self._lock:
            return self._ids.popleft() if self._ids else None

    def waiting_ids(self) -> AbstractSet[str]:
        """Return the ids that wait; see `JobIdQueue.waiting_ids`."""
        with self._lock:
            return frozenset(self._ids)

    def remove_ids(self, job_ids: Collection[str]) -> None:
        """Take ids out; see `JobIdQueue.remove_ids`."""
        with self._lock:
            self._ids = deque(waiting for waiting in self._ids if waiting not in job_ids)

    def check(self) -> None:
        """Return: memory always answers."""
