"""Delivers events beside the controller: several in flight, each once, and a slow answer holds up nobody."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass

import httpx
from sqlalchemy.orm import Session

from service.jobs import repository as jobs
from service.kit import outbox
from service.kit.db import Database
from service.kit.outbox import OutboxRow
from service.webhooks import repository
from service.webhooks.endpoint import Endpoint
from service.webhooks.message import body_of
from service.webhooks.post import Outcome, post
from service.webhooks.schedule import RETRY_DELAYS, next_delay
from service.webhooks.tables import WebhookAttempt

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Pace:
    """How deliveries are made. Times in seconds."""

    timeout: float = 15.0
    in_flight: int = 8
    delays: tuple[float, ...] = RETRY_DELAYS

    @property
    def claim(self) -> float:
        """How long an event in flight is withheld from other senders: a try, and the time to note its outcome."""
        return self.timeout * 2


@dataclass(frozen=True)
class Delivery:
    """One event to post now; `tries` counts this try."""

    seq: int
    event_id: str
    kind: str
    body: bytes
    tries: int


class WebhookSender:
    """Works off the outbox's webhooks against one endpoint. Without an endpoint it marks them as done, with a note."""

    def __init__(self, db: Database, endpoint: Endpoint | None, pace: Pace | None = None) -> None:
        self._db = db
        self._endpoint = endpoint
        self._pace = pace or Pace()
        self._tasks: set[asyncio.Task[None]] = set()
        self._client: httpx.AsyncClient | None = None

    async def step(self) -> int:
        """Start the deliveries that are due and there is room for; return how many. Raises Unavailable."""
        self._forget_finished()
        room = self._pace.in_flight - len(self._tasks)
        if room <= 0:
            return 0
        deliveries = await asyncio.to_thread(self._claim, room)
        for delivery in deliveries:
            self._tasks.add(asyncio.create_task(self._deliver(delivery)))
        return len(deliveries)

    async def settle(self) -> None:
        """Wait for the deliveries in flight. Raises Unavailable where an outcome could not be noted."""
        while self._tasks:
            await asyncio.wait(self._tasks)
            self._forget_finished()

    async def close(self) -> None:
        """Break off what is in flight: the next sender delivers it again, with the same id."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()
        if self._client is not None:
            await self._client.aclose()

    def _forget_finished(self) -> None:
        finished = {task for task in self._tasks if task.done()}
        self._tasks -= finished
        for task in finished:
            task.result()

    def _claim(self, room: int) -> Sequence[Delivery]:
        with self._db.read() as session:  # a look costs no write lock
            if not outbox.due(session, outbox.Topic.SEND_WEBHOOK, limit=1):
                return []
        with self._db.write() as session:
            rows = repository.claim_due(session, limit=room, seconds=self._pace.claim)
            if self._endpoint is None:
                for row in rows:
                    outbox.mark_done(session, row.seq, error="no webhook endpoint is configured")
                return []
            return [delivery for row in rows if (delivery := _delivery_of(session, row))]

    async def _deliver(self, delivery: Delivery) -> None:
        assert self._endpoint is not None
        outcome = await post(
            self._opened(), self._endpoint, delivery.event_id, delivery.body, timeout=self._pace.timeout
        )
        await asyncio.to_thread(self._note, self._endpoint, delivery, outcome)

    def _opened(self) -> httpx.AsyncClient:
        if self._client is None:
            self._client = httpx.AsyncClient(follow_redirects=False, timeout=self._pace.timeout)
        return self._client

    def _note(self, endpoint: Endpoint, delivery: Delivery, outcome: Outcome) -> None:
        delay = None if outcome.gone else next_delay(delivery.tries, outcome.retry_after, self._pace.delays)
        with self._db.write() as session:
            session.add(
                WebhookAttempt(
                    event_id=delivery.event_id,
                    url=endpoint.url,
                    status_code=outcome.status_code,
                    error=outcome.error,
                    duration_ms=outcome.duration_ms,
                )
            )
            if outcome.error is None:
                outbox.mark_done(session, delivery.seq)
            elif delay is None:
                outbox.mark_done(session, delivery.seq, error=f"given up after {delivery.tries}: {outcome.error}")
            else:
                outbox.mark_failed(session, delivery.seq, error=outcome.error, retry_in=delay)
        _tell(delivery, outcome, delay)


def _delivery_of(session: Session, row: OutboxRow) -> Delivery | None:
    event_id, kind = row.payload["event_id"], row.payload["type"]
    job = jobs.by_id(session, row.payload["object_id"])
    if job is None or job.finished_at is None:
        outbox.mark_done(session, row.seq, error="there is no such ended job")
        return None
    body = body_of(event_id, kind, int(job.finished_at), job.id)
    return Delivery(row.seq, event_id, kind, body, row.attempts + 1)


def _tell(delivery: Delivery, outcome: Outcome, delay: float | None) -> None:
    what = f"webhook {delivery.event_id} ({delivery.kind})"
    if outcome.error is None:
        _log.info("%s was delivered", what)
    elif delay is None:
        _log.error("%s is given up after %d tries: %s", what, delivery.tries, outcome.error)
    else:
        _log.warning("%s failed: %s; next try in %d s", what, outcome.error, delay)
