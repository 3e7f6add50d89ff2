"""A job's events as server-sent events (WHATWG HTML, section 9.2), read from SQL until the job has ended.

Each API process has one reader a job, whatever the number of the job's streams. The reader keeps the last messages in
a window that all streams share, so that a slow stream costs no memory: it keeps its position alone, and reads again
from SQL what has left the window.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import time
from collections import Counter, deque
from collections.abc import AsyncGenerator, Generator, Sequence
from contextlib import contextmanager, suppress
from typing import NamedTuple

from anyio import CapacityLimiter, to_thread

from service.context import Context
from service.jobs import repository
from service.jobs.schemas import JobEventObject, JobObject
from service.jobs.states import TERMINAL
from service.keys.service import Principal, find_reading_keys
from service.kit.errors import Unavailable
from service.kit.open_places import OpenPlaces
from service.tables.jobs import JobEventRow, JobRow

log = logging.getLogger(__name__)

_KEEP_ALIVE_SECONDS = 15.0
_READS_AT_ONCE = 2
"""Apart from the turns of requests: streams must not keep those from the threads and connections."""
_QUICK_READERS = 10
"""How many jobs of a project are read at each poll; with more of them each is read less often."""
_WINDOW_EVENTS, _WINDOW_BYTES = 1000, 2 << 20


class StreamMessage(NamedTuple):
    """An event as it is sent, and its position in the job's order."""

    position: int
    data: bytes


class EventStreams:
    """The streams of one API process. All of it runs in the event loop; a thread is held only while SQL is read."""

    def __init__(self, context: Context) -> None:
        settings = context.settings
        self.places = OpenPlaces(
            "event streams", per_project=settings.open_event_streams_per_project, total=settings.open_event_streams
        )
        self.context = context
        self.reads = CapacityLimiter(_READS_AT_ONCE)
        self._readers: dict[str, _JobReader] = {}

    async def follow_job(self, job_id: str, position: int, principal: Principal) -> AsyncGenerator[bytes]:
        """Yield every event after `position`, then wait for more; end with `done` and the job.

        It ends without `done` if the job is deleted, and once the key may not read any more.
        """
        quiet_since = time.monotonic()
        with self._share_reader(job_id, position, principal) as reader:
            while reader.may_read(principal.key_id):
                # A stream that is far behind reads pages of its own, and the shared window stays small.
                messages = reader.messages_after(position)
                if messages is None:
                    messages = await self._read_page(job_id, position)
                for message in messages:
                    position = message.position
                    yield message.data
                    quiet_since = time.monotonic()
                if messages:
                    continue
                # Only after the last events were sent, which the job's end wrote in the same transaction.
                if reader.over:
                    if reader.done is not None:
                        yield reader.done
                    return
                await reader.wait_for_news(quiet_since + _KEEP_ALIVE_SECONDS - time.monotonic())
                if time.monotonic() - quiet_since > _KEEP_ALIVE_SECONDS:
                    quiet_since = time.monotonic()
                    # A comment line of the format: proxies close connections that send nothing for a minute.
                    yield b": keep-alive\n\n"

    def count_readers(self, project_id: str) -> int:
        """Return how many jobs of a project are being read."""
        return sum(reader.project_id == project_id for reader in self._readers.values())

    @contextmanager
    def _share_reader(self, job_id: str, position: int, principal: Principal) -> Generator[_JobReader]:
        """Share the job's reader, which ends with its last stream."""
        reader = self._readers.get(job_id)
        # A reader that is over reads no more: a resumed or new stream needs a fresh one.
        if reader is None or reader.over:
            reader = self._readers[job_id] = _JobReader(self, principal.project_id, job_id, position)
        reader.keys[principal.key_id] += 1
        try:
            yield reader
        finally:
            reader.keys[principal.key_id] -= 1
            reader.keys += Counter()  # drops the keys that no stream has
            if not reader.keys:
                reader.stop()
                if self._readers.get(job_id) is reader:
                    del self._readers[job_id]

    async def _read_page(self, job_id: str, position: int) -> Sequence[StreamMessage]:
        """Read what has left the window."""

        def read_events() -> Sequence[JobEventRow]:
            with self.context.db.read() as session:
                return repository.events_since(session, job_id, position)

        return [_make_message(event) for event in await to_thread.run_sync(read_events, limiter=self.reads)]


class _JobNews(NamedTuple):
    job: JobRow | None
    events: Sequence[JobEventRow]
    keys: set[str]


class _JobReader:
    """Reads one job's events for all its streams, and whether their keys may still read."""

    def __init__(self, streams: EventStreams, project_id: str, job_id: str, position: int) -> None:
        self.project_id = project_id
        self.keys: Counter[str] = Counter()
        """The keys of the streams."""
        self.over = False
        """Whether nothing more comes."""
        self.done: bytes | None = None
        """The message that ends the streams of a job that has ended."""
        self._streams = streams
        self._context = streams.context
        self._job_id = job_id
        self._start = self._end = position
        self._window: deque[StreamMessage] = deque()
        self._bytes = 0
        self._refused: set[str] = set()
        self._changed = asyncio.Event()
        # In a context of its own: it is not part of the request that opened the first stream.
        self._task = asyncio.get_running_loop().create_task(self._read_until_over(), context=contextvars.Context())

    def may_read(self, key_id: str) -> bool:
        """Return whether a stream's key could read at the last look."""
        return key_id not in self._refused

    def messages_after(self, position: int) -> Sequence[StreamMessage] | None:
        """Return the messages after a position; None if some of them have left the window."""
        if position < self._start:
            return None
        if position >= self._end:
            return ()
        return [message for message in self._window if message.position > position]

    async def wait_for_news(self, seconds: float) -> None:
        """Wait until something has changed, for so long at most."""
        with suppress(TimeoutError):
            async with asyncio.timeout(max(seconds, 0.0)):
                await self._changed.wait()

    def stop(self) -> None:
        self._task.cancel()

    async def _read_until_over(self) -> None:
        try:
            while not self.over:
                news = await self._read_news()
                if news is not None:
                    self._take_news(news)
                if news is None or not news.events:
                    await asyncio.sleep(self._pause_seconds())
        except Exception:
            log.exception("The events of %s cannot be read", self._job_id)
            self.over = True
            self._wake_streams()

    def _pause_seconds(self) -> float:
        """A project that follows very many jobs does not read SQL more often for it."""
        share = self._streams.count_readers(self.project_id) / _QUICK_READERS
        return self._context.settings.poll_seconds * max(1.0, share)

    async def _read_news(self) -> _JobNews | None:
        """Read on; None while the database is away, which ends no stream."""
        # Looked up again with every read: a key that is revoked ends its open streams.
        keys = tuple(self.keys)
        try:
            return await to_thread.run_sync(self._query_news, keys, limiter=self._streams.reads)
        except Unavailable as error:
            log.warning("The events of %s cannot be read at the moment: %s", self._job_id, error.message)
            return None

    def _query_news(self, keys: Sequence[str]) -> _JobNews:
        """Read the job BEFORE its events: what ends a job writes its last events in the same transaction."""
        with self._context.db.read() as session:
            reading = find_reading_keys(session, keys)
            job = repository.by_id(session, self._job_id)
            events = repository.events_since(session, self._job_id, self._end)
            return _JobNews(job, events, set(keys) - reading)

    def _take_news(self, news: _JobNews) -> None:
        for event in news.events:
            self._append_message(_make_message(event))
        has_news = bool(news.events) or news.keys != self._refused
        self._refused = news.keys
        if news.job is None:
            self.over = True
        # Not while a full page was read: more events may follow it.
        elif not news.events and news.job.state in TERMINAL:
            shown = JobObject.from_row(news.job, self._context.settings.organization)
            self.done = _format_message("done", shown.model_dump_json(), None)
            self.over = True
        if has_news or self.over:
            self._wake_streams()

    def _append_message(self, message: StreamMessage) -> None:
        self._window.append(message)
        self._bytes += len(message.data)
        self._end = message.position
        while self._window and (len(self._window) > _WINDOW_EVENTS or self._bytes > _WINDOW_BYTES):
            oldest = self._window.popleft()
            self._bytes -= len(oldest.data)
            self._start = oldest.position

    def _wake_streams(self) -> None:
        # A new event each time, so that whoever waits later does not find the old one set.
        self._changed.set()
        self._changed = asyncio.Event()


def _make_message(event: JobEventRow) -> StreamMessage:
    return StreamMessage(
        event.seq, _format_message("fine_tuning.job.event", JobEventObject.from_row(event).model_dump_json(), event.id)
    )


def _format_message(kind: str, data: str, event_id: str | None) -> bytes:
    identity = f"id: {event_id}\n" if event_id else ""
    return f"{identity}event: {kind}\ndata: {data}\n\n".encode()
