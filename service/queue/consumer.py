"""The worker's end of the queue: takes ids one at a time, and believes nothing else that lies there.

RQ is the transport alone: its queue's list and the record of each job, which `rq info` can show. What a record says
(function names, callbacks, webhooks, results) is text that anybody with access to the server could have written:
nothing of it is imported, called or loaded as a pickle. RQ's worker is not used:
see docs/adr/0020-rq-is-the-queue-not-the-worker.md.
"""

from __future__ import annotations

import logging
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from types import FrameType
from typing import Any

from redis.exceptions import RedisError, ResponseError
from rq.job import Job
from rq.queue import Queue
from rq.serializers import JSONSerializer

from service.kit import ids
from service.queue.rq import AWAY, FUNCTION, QUEUE_NAME, address_of, connect_redis, drop_foreign

log = logging.getLogger(__name__)

_RETRIES = 200
"""With waits of up to 5 s: a worker outlives about 16 minutes without its queue."""
_BLOCK_SECONDS = 20
_ANSWER_SECONDS = 10
_CLEANING_SECONDS = 600.0


class StopRequested(Exception):
    """SIGTERM or SIGINT came while the worker was idle; raised out of whatever it waits for."""


class JobConsumer:
    """Takes ids from the queue and runs them until a signal asks it to stop.

    Make and use it in the process's main thread. `stop` is set by the first SIGTERM or SIGINT from then on.
    """

    def __init__(self, url: str, *, name: str, stop: threading.Event) -> None:
        self._stop = stop
        self._busy = False
        # Before the first connection, so that a signal during a long outage ends the wait as well.
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._request_stop)
        # An answer to BLMOVE comes after the block at the latest.
        self._redis: Any = connect_redis(url, retries=_RETRIES, timeout=_BLOCK_SECONDS + _ANSWER_SECONDS)
        queue: Any = Queue(QUEUE_NAME, connection=self._redis, serializer=JSONSerializer)
        self._list: str = queue.key
        self._aside = f"{self._list}:intermediate"
        self._greeting = f"Worker {name} listens on the queue at {address_of(url)}"

    def consume_ids(self, run: Callable[[str], None]) -> None:
        """Call `run` with each id that comes. Raises StopRequested at a signal, RedisError after long outages."""
        self._redis.ping()
        log.info(self._greeting)
        clean_at = time.monotonic()
        while not self._stop.is_set():
            if time.monotonic() >= clean_at:
                # What died with a worker while it took an id: the controller sends it again.
                self._redis.delete(self._aside)
                clean_at = time.monotonic() + _CLEANING_SECONDS
            job_id = self._take_id()
            if job_id is not None:
                self._run_guarded(run, job_id)

    def close(self) -> None:
        with suppress(RedisError):
            self._redis.close()

    def _take_id(self) -> str | None:
        """Wait for the next id; None if none came for a while, or what came was not a call of ours."""
        try:
            entry: bytes | None = self._redis.blmove(self._list, self._aside, _BLOCK_SECONDS)
        except ResponseError:
            if drop_foreign(self._redis, self._list, self._aside):
                return None
            raise
        if entry is None:
            return None
        job_id = entry.decode("utf-8", "replace")
        if not ids.is_id(job_id, ids.JOB):
            log.warning("Dropped an entry of the queue that is not a job id: %.80r", entry)
            self._forget_entry(entry)
            return None
        # Whoever can write to Valkey must not choose what a worker calls: only an exact call of ours is accepted, and
        # even then SQL decides which job runs.
        is_own_entry = self._has_honest_record(job_id)
        # Lost from here on if this process dies: the controller finds the job queued in SQL and sends it again.
        self._redis.delete(Job.key_for(job_id))
        self._forget_entry(entry)
        return job_id if is_own_entry else None

    def _has_honest_record(self, job_id: str) -> bool:
        """Return whether the record of an id asks for `run_job` with that id, and nothing else."""
        try:
            record: Any = Job.fetch(  # pyright: ignore[reportUnknownMemberType]
                job_id, connection=self._redis, serializer=JSONSerializer
            )
            call = (record.func_name, record.instance, record.args, record.kwargs)
        except (*AWAY, StopRequested):
            # An outage says nothing about the record: dropping it here would lose the id.
            raise
        except Exception as error:  # noqa: BLE001 - a record from outside can be wrong in any way
            log.warning("Dropped the record of %s, which cannot be read: %s", job_id, type(error).__name__)
            return False
        if call != (FUNCTION, None, [job_id], {}):
            log.warning("Dropped %s: its payload is not a call of %s with its id", job_id, FUNCTION)
            return False
        return True

    def _run_guarded(self, run: Callable[[str], None], job_id: str) -> None:
        # From here on a signal only sets `stop`: raising inside a running attempt would skip its orderly end.
        self._busy = True
        try:
            run(job_id)
        except Exception:
            log.exception("%s could not be run", job_id)
        finally:
            self._busy = False

    def _forget_entry(self, entry: bytes) -> None:
        try:
            self._redis.lrem(self._aside, 0, entry)
        except ResponseError:
            drop_foreign(self._redis, self._aside)

    def _request_stop(self, number: int, _frame: FrameType | None) -> None:
        """Stop at once if idle; a running job returns to the queue first."""
        if self._stop.is_set():
            return
        log.info("Got %s", signal.Signals(number).name)
        self._stop.set()
        if not self._busy:
            raise StopRequested
