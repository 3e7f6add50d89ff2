"""Work that a worker does beside its jobs, in a thread of its own."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from types import TracebackType
from typing import Self


class BackgroundWork(ABC):
    """A context manager around the thread: it begins with the block, and ends within `join_seconds` after it."""

    def __init__(self, name: str, *, join_seconds: float = 10.0) -> None:
        self._stop = threading.Event()
        self._join_seconds = join_seconds
        self._thread = threading.Thread(target=self._run_until_stopped, name=name, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join(self._join_seconds)

    @abstractmethod
    def _run_until_stopped(self) -> None:
        """Work until `_stop` is set."""
