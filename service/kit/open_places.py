"""How many connections of one kind are open: a bound for each project, and one for the process."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Generator
from contextlib import contextmanager

from service.kit.errors import ServiceError


class TooManyOpen(ServiceError):
    """As many are open as may be."""

    status = 429
    type = "rate_limit_error"
    code = "too_many_at_once"
    retry = True

    def __init__(self, noun: str, most: int, of: str, *, retry_after: int) -> None:
        super().__init__(
            f"{most} {noun} {of} are open already, the most that may. Close some of them, or try again in "
            f"{retry_after} seconds."
        )
        self.headers = {"retry-after": str(retry_after)}


class OpenPlaces:
    """Counts what is open in this process. `noun` names it in the plural, in the sentence of a refusal.

    Threads and the event loop may hold places at the same time.
    """

    def __init__(self, noun: str, *, per_project: int, total: int, retry_after: int = 5) -> None:
        self._noun = noun
        self._per_project = per_project
        self._total = total
        self._retry_after = retry_after
        self._open: Counter[str] = Counter()
        self._lock = threading.Lock()

    @contextmanager
    def hold_place(self, project_id: str) -> Generator[None]:
        """Count one more for the length of the block. Raises TooManyOpen."""
        with self._lock:
            if self._open[project_id] >= self._per_project:
                raise TooManyOpen(self._noun, self._per_project, "of this project", retry_after=self._retry_after)
            if self._open.total() >= self._total:
                raise TooManyOpen(self._noun, self._total, "in this process", retry_after=self._retry_after)
            self._open[project_id] += 1
        try:
            yield
        finally:
            with self._lock:
                self._open[project_id] -= 1
                if not self._open[project_id]:
                    del self._open[project_id]

    def count_open(self, project_id: str | None = None) -> int:
        """Return how many are open, of one project or of all."""
        with self._lock:
            return self._open.total() if project_id is None else self._open.get(project_id, 0)
