"""Answers that are worked out once for many callers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Generic, TypeVar

from anyio import to_thread

T = TypeVar("T")


class SharedResult(Generic[T]):
    """What a function returns or raises, worked out in a thread at most once in `seconds` (None: once for good).

    Callers that come while it is being worked out wait for the same result. It belongs to one event loop.
    """

    def __init__(self, function: Callable[[], T], seconds: float | None = None) -> None:
        self._function = function
        self._seconds = seconds
        self._task: asyncio.Task[T] | None = None
        self._done_at: float | None = None

    async def get(self) -> T:
        """Return the result, or raise what the function raised."""
        if self._task is None or self._is_old():
            self._done_at = None
            self._task = asyncio.create_task(self._compute_result())
            self._task.add_done_callback(_retrieve_exception)
        # A caller that leaves must not break off the work for the others.
        return await asyncio.shield(self._task)

    async def _compute_result(self) -> T:
        try:
            return await to_thread.run_sync(self._function)
        finally:
            self._done_at = time.monotonic()

    def _is_old(self) -> bool:
        return (
            self._seconds is not None
            and self._done_at is not None
            and time.monotonic() - self._done_at >= self._seconds
        )


def _retrieve_exception(task: asyncio.Task[T]) -> None:
    """Look at the task's error, which nobody else may: asyncio would log it as forgotten."""
    if not task.cancelled():
        task.exception()
