"""What a process of the API does between requests."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from functools import partial

from anyio import to_thread
from fastapi import FastAPI

from service.audit.refusals import RefusalLog
from service.kit.reserve import DiskReserve

_log = logging.getLogger(__name__)
_EVERY_SECONDS = 5.0


@asynccontextmanager
async def run_upkeep(app: FastAPI) -> AsyncGenerator[None]:
    """Write what was counted of refused calls, and take the disk's reserve again, until the application ends."""
    refusals: RefusalLog | None = app.state.refusals
    if refusals is None:
        yield
        return
    tending = asyncio.create_task(_repeat_upkeep(refusals, app.state.reserve))
    yield
    tending.cancel()
    with suppress(asyncio.CancelledError):
        await tending
    await to_thread.run_sync(partial(refusals.write_due, everything=True))


async def _repeat_upkeep(refusals: RefusalLog, reserve: DiskReserve) -> None:
    while True:
        await asyncio.sleep(_EVERY_SECONDS)
        try:
            await to_thread.run_sync(refusals.write_due)
            await to_thread.run_sync(reserve.fill)
        except Exception:  # noqa: BLE001 - whatever it is, it must not end the tending
            _log.exception("what is due between requests failed; it is tried again")
