"""The queue on Redis or Valkey by RQ: one queue, JSON, job ids only. A job's record lives there until it is taken."""

from __future__ import annotations

import logging
from collections.abc import Collection, Generator
from collections.abc import Set as AbstractSet
from contextlib import contextmanager, suppress
from typing import Any
from urllib.parse import urlsplit

from redis import Redis
from redis.backoff import ExponentialBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError
from redis.retry import Retry
from rq.job import Job
from rq.queue import Queue
from rq.serializers import JSONSerializer

from service.kit import ids
from service.kit.settings import SettingsError
from service.queue.base import QueueUnavailable

log = logging.getLogger(__name__)

QUEUE_NAME = "burnish"
FUNCTION = "service.worker.run.run_job"
"""The only function that workers run; its only argument is the job's id."""

AWAY = (RedisConnectionError, RedisTimeoutError)
_PUSH_RETRIES = 2
_TIMEOUT_SECONDS = 5
_RECORD_SECONDS = 60


def connect_redis(url: str, *, retries: int, timeout: float = _TIMEOUT_SECONDS) -> Redis:
    """Return a client that repeats a command up to `retries` times, at most 5 s apart, while the server is away.

    `timeout` is how many seconds a connection or an answer may take. Raises SettingsError if the URL is none.
    """
    try:
        return Redis.from_url(  # pyright: ignore[reportUnknownMemberType]
            url,
            retry=Retry(ExponentialBackoff(cap=5, base=0.2), retries),
            # Only for a server that is away: a command that the server refuses would be refused again.
            retry_on_error=list(AWAY),
            socket_timeout=timeout,
            socket_connect_timeout=timeout,
            # A connection that a firewall dropped silently is found by a PING before it is used, not by a timeout.
            health_check_interval=30,
        )
    except ValueError as error:
        raise SettingsError(
            "BURNISH_REDIS_URL is not the address of a Valkey or Redis; it looks like redis://host:6379/0."
        ) from error


def address_of(url: str) -> str:
    """Return the server's address from a URL, for messages: without user, password and options."""
    parts = urlsplit(url)
    return parts.path if parts.scheme == "unix" else f"{parts.hostname}:{parts.port or 6379}"


def drop_foreign(redis: Any, *keys: str) -> bool:
    """Delete those of the queue's keys that are not lists; return whether there were any.

    Nothing of ours is lost: the queue is filled again from SQL.
    """
    foreign = [key for key in keys if redis.type(key) not in (b"list", b"none")]
    for key in foreign:
        log.warning("Dropped the key %s, which is not a list", key)
        redis.delete(key)
    return bool(foreign)


class RqJobQueue:
    """A `JobIdQueue` for the controller. A call fails after a few seconds: its outbox tries again later."""

    def __init__(self, redis_url: str) -> None:
        self._redis: Any = connect_redis(redis_url, retries=_PUSH_RETRIES)
        self._address = address_of(redis_url)
        self._queue: Any = Queue(QUEUE_NAME, connection=self._redis, serializer=JSONSerializer)

    def push(self, job_id: str) -> None:
        """Send an id; its RQ job has the same id. What an earlier push left behind does not block it.

        Raises QueueUnavailable.
        """
        record = Job.key_for(job_id)
        with self._translate_errors():
            if self._redis.lpos(self._queue.key, job_id) is not None:
                # Entry and record are both there: the id waits already, and a second entry would only cause an empty
                # claim.
                if self._redis.exists(record):
                    return
                self._redis.lrem(self._queue.key, 0, job_id)  # workers pass over an id without a record
            # An earlier push may have left a record without an entry; its fields must not mix with the new ones.
            self._redis.delete(record)
            self._queue.enqueue_call(
                FUNCTION,
                args=[job_id],
                job_id=job_id,
                # No timeout of RQ's: the lease and the job's own timeout bound an attempt.
                timeout=-1,
                result_ttl=_RECORD_SECONDS,
                failure_ttl=_RECORD_SECONDS,
            )

    def waiting_ids(self) -> AbstractSet[str]:
        """Return the well-formed job ids that wait. Raises QueueUnavailable."""
        with self._translate_errors():
            entries: list[bytes] = self._redis.lrange(self._queue.key, 0, -1)
        # Others may write to the same server: entries that are not job ids are not counted as waiting.
        texts = (entry.decode("utf-8", "replace") for entry in entries)
        return frozenset(text for text in texts if ids.is_id(text, ids.JOB))

    def remove_ids(self, job_ids: Collection[str]) -> None:
        """Take ids out, with their RQ jobs; see `JobIdQueue.remove_ids`. Raises QueueUnavailable."""
        with self._translate_errors():
            for job_id in job_ids:
                self._redis.lrem(self._queue.key, 0, job_id)
                self._redis.delete(Job.key_for(job_id))

    def check(self) -> None:
        """Raise QueueUnavailable unless the server answers."""
        with self._translate_errors():
            self._redis.ping()

    def close(self) -> None:
        self._redis.close()

    @contextmanager
    def _translate_errors(self) -> Generator[None, None, None]:
        try:
            yield
        except RedisError as error:
            # WRONGTYPE: a key of ours holds another type. It is dropped, and the next try creates it anew.
            if isinstance(error, ResponseError):
                with suppress(RedisError):
                    drop_foreign(self._redis, self._queue.key)
            raise QueueUnavailable(
                f"The queue's server at {self._address} does not answer ({type(error).__name__}): "
                "check that Valkey or Redis runs there and that BURNISH_REDIS_URL is right."
            ) from error
