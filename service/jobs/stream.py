"""A job's events as server-sent events (WHATWG HTML, section 9.2), read from SQL until the job has ended."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator

import anyio
from anyio import to_thread

from service.context import Context
from service.jobs import repository
from service.jobs.schemas import JobEventObject, JobObject
from service.jobs.states import TERMINAL
from service.jobs.tables import Job, JobEvent

_KEEP_ALIVE_SECONDS = 15.0


async def follow(context: Context, job_id: str, position: int) -> AsyncIterator[bytes]:
    """Yield every event after `position`, then wait for more; end with `done` and the job."""
    quiet_since = time.monotonic()
    while True:
        job, events = await to_thread.run_sync(_read, context, job_id, position)
        for event in events:
            position = event.seq
            yield _message("fine_tuning.job.event", JobEventObject.of(event).model_dump_json(), event.id)
        if job is None:
            return
        if not events and job.state in TERMINAL:
            yield _message("done", JobObject.of(job, context.settings.organization).model_dump_json(), None)
            return
        now = time.monotonic()
        if events:
            quiet_since = now
        elif now - quiet_since > _KEEP_ALIVE_SECONDS:
            quiet_since = now
            yield b": keep-alive\n\n"
        if not events:
            await anyio.sleep(context.settings.poll_seconds)


def _read(context: Context, job_id: str, position: int) -> tuple[Job | None, list[JobEvent]]:
    """Read the job BEFORE its events: what ends a job writes its last events in the same transaction."""
    with context.db.read() as session:
        return repository.by_id(session, job_id), list(repository.events_since(session, job_id, position))


def _message(kind: str, data: str, event_id: str | None) -> bytes:
    identity = f"id: {event_id}\n" if event_id else ""
    return f"{identity}event: {kind}\ndata: {data}\n\n".encode()
