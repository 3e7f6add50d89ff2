"""A job's events as they happen, over as many connections as it takes; no event is given twice."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Generator

import httpx
from pydantic import ValidationError
from typing_extensions import Self

from burnish._request import Request, RetryableCall, whole_response
from burnish._retry import LONGEST_WAIT, RetryPolicy
from burnish._sse import Decoder, Frame
from burnish._transport import AsyncTransport, Transport
from burnish.errors import APIConnectionError, WaitTimeoutError
from burnish.schemas import Job, JobEvent

RECONNECTS = RetryPolicy(max_retries=12)
"""In a row without a byte received: about a minute, enough for a server's restart."""

QUIET = 60.0
"""Seconds without a byte, not even a keep-alive comment, after which the connection counts as lost."""


class Feed:
    """What the stream keeps between connections: the last id, the ids given out, the final job."""

    def __init__(self, *, job_id: str, path: str, base_url: str, timeout: float | None) -> None:
        self.job: Job | None = None
        self._job_id = job_id
        self._path = path
        self._timeout = timeout
        self._deadline = None if timeout is None else time.monotonic() + timeout
        self._last_id: str | None = None
        self._seen: set[str] = set()
        self._decoder = Decoder()
        self._call = RetryableCall(self._build_request(), RECONNECTS, base_url, seconds_left=self._seconds_left)

    def next_call(self) -> RetryableCall:
        """Return the call that opens the next connection. Raises WaitTimeoutError."""
        self._decoder = Decoder()
        self._call.request = self._build_request()
        return self._call

    def read_events(self, chunk: bytes) -> Generator[JobEvent, None, None]:
        """Yield the new events in `chunk`. Raises WaitTimeoutError, APIConnectionError for no JSON."""
        self._call.attempt = 0
        for frame in self._decoder.feed(chunk):
            event = self._accept_frame(frame)
            if event is not None:
                yield event
        if self.job is None:
            self._seconds_left()

    def reconnect_delay(self, error: httpx.RequestError | None) -> float:
        """Return the seconds to wait before connecting again. Raises APIError after too many attempts."""
        failure = httpx.RemoteProtocolError("the event stream ended before the job did")
        delay = self._call.delay_after_failure(error or failure)
        return max(delay, min(self._decoder.retry or 0.0, LONGEST_WAIT, self._seconds_left() or LONGEST_WAIT))

    def _accept_frame(self, frame: Frame) -> JobEvent | None:
        try:
            if frame.event == "done":
                self.job = Job.model_validate_json(frame.data)
                return None
            if frame.event != "fine_tuning.job.event":
                return None
            event = JobEvent.model_validate_json(frame.data)
        except ValidationError as error:
            raise APIConnectionError(f"The event stream of {self._job_id} cannot be read: {error}") from None
        self._last_id = frame.id or event.id
        if event.id in self._seen:
            return None
        self._seen.add(event.id)
        return event

    def _build_request(self) -> Request[httpx.Response]:
        headers = {"Accept": "text/event-stream", "Cache-Control": "no-store"}
        if self._last_id is not None:
            headers["Last-Event-ID"] = self._last_id
        seconds_left = self._seconds_left()
        quiet = QUIET if seconds_left is None else min(QUIET, seconds_left)
        return Request("GET", self._path, whole_response, headers=headers, streamed=True, read_timeout=quiet)

    def _seconds_left(self) -> float | None:
        """Return the seconds left, at least a little. Raises WaitTimeoutError when there are none."""
        if self._deadline is None:
            return None
        seconds_left = self._deadline - time.monotonic()
        if seconds_left <= 0:
            raise WaitTimeoutError(f"Job {self._job_id} had not ended after {self._timeout:g} s; it still runs.")
        return max(seconds_left, 0.01)


class JobStream:
    """Iterate over it for the job's events, oldest first; afterwards `job` is the ended job."""

    def __init__(self, client: Transport, feed: Feed) -> None:
        self._feed = feed
        self._events = _follow_events(client, feed)

    @property
    def job(self) -> Job | None:
        """The job as it ended; None before."""
        return self._feed.job

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> JobEvent:
        return next(self._events)

    def close(self) -> None:
        """Close the connection; the job keeps running."""
        self._events.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class AsyncJobStream:
    """Like `JobStream`, by `async for`."""

    def __init__(self, client: AsyncTransport, feed: Feed) -> None:
        self._feed = feed
        self._events = _follow_events_async(client, feed)

    @property
    def job(self) -> Job | None:
        """The job as it ended; None before."""
        return self._feed.job

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> JobEvent:
        return await self._events.__anext__()

    async def close(self) -> None:
        """Close the connection; the job keeps running."""
        await self._events.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


def _follow_events(client: Transport, feed: Feed) -> Generator[JobEvent, None, None]:
    while True:
        error = None
        try:
            with client.open_response(feed.next_call()) as response:
                for chunk in response.iter_bytes():
                    yield from feed.read_events(chunk)
                    if feed.job is not None:
                        return
        except httpx.TransportError as transport_error:
            error = transport_error
        client.sleep(feed.reconnect_delay(error))


async def _follow_events_async(client: AsyncTransport, feed: Feed) -> AsyncGenerator[JobEvent, None]:
    while True:
        error = None
        try:
            async with client.open_response(feed.next_call()) as response:
                async for chunk in response.aiter_bytes():
                    for event in feed.read_events(chunk):
                        yield event
                    if feed.job is not None:
                        return
        except httpx.TransportError as transport_error:
            error = transport_error
        await client.sleep(feed.reconnect_delay(error))
