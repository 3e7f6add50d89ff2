"""Work for a caller who may hang up."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from starlette.requests import ClientDisconnect, Request

T = TypeVar("T")
_LOOK_SECONDS = 0.5


async def run_while_connected(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """Wait for `work`, and give it up when the caller hangs up. Raises ClientDisconnect then."""
    task = asyncio.create_task(work)
    try:
        # `wait` and not `wait_for`: a timeout of the look must not cancel the work.
        while not (await asyncio.wait({task}, timeout=_LOOK_SECONDS))[0]:
            if await request.is_disconnected():
                raise ClientDisconnect
        return task.result()
    finally:
        # Also after the caller hung up or this coroutine was cancelled; a task that is done ignores it.
        task.cancel()
