"""Delivers events beside the controller: several in flight, each once, and a slow answer holds up nobody else."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import httpx
from sqlalchemy.orm import Session

from service.context import Context
from service.jobs import repository as jobs
from service.kit import metrics, outbox, tracing
from service.kit.log import about
from service.kit.outbox import OutboxRow
from service.webhooks import health, repository
from service.webhooks.fan_out import CONFIGURED_LANE, hand_out
from service.webhooks.guard import Guard, guard_of, guarded_client
from service.webhooks.message import body_of
from service.webhooks.post import Outcome, post
from service.webhooks.schedule import RETRY_DELAYS, next_delay
from service.webhooks.target import Target, target_of
from service.webhooks.vault import Vault

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Pace:
    """How deliveries are made. Times in seconds."""

    timeout: float = 15.0
    in_flight: int = 16
    in_flight_to_one: int = 2
    """How many deliveries to one receiver are in flight at once, so that a slow one leaves room for others."""
    delays: tuple[float, ...] = RETRY_DELAYS

    @property
    def claim(self) -> float:
        """How long an event in flight is withheld from other senders: a try, and the time to note its outcome."""
        return self.timeout * 2


@dataclass(frozen=True)
class Delivery:
    """One event to post now; `tries` counts this try."""

    seq: int
    lane: str
    event_id: str
    kind: str
    body: bytes
    tries: int
    target: Target
    object_id: str
    traceparent: str | None


class WebhookSender:
    """Hands events out and works off the deliveries, to the endpoints of projects and to the settings' receiver."""

    def __init__(
        self, context: Context, configured: Target | None, pace: Pace | None = None, guard: Guard | None = None
    ) -> None:
        self._db = context.db
        self._vault = Vault(context.hmac_key)
        self._guard = guard or guard_of(context.settings)
        self._configured = configured
        self._pace = pace or Pace()
        self._tasks: dict[asyncio.Task[None], str] = {}
        self._clients: dict[bool, httpx.AsyncClient] = {}

    async def step(self) -> int:
        """Start the deliveries that are due and there is room for; return how many. Raises Unavailable."""
        self._forget_finished()
        room = self._pace.in_flight - len(self._tasks)
        if room <= 0:
            return 0
        deliveries = await asyncio.to_thread(self._claim, room, Counter(self._tasks.values()))
        for delivery in deliveries:
            self._tasks[asyncio.create_task(self._deliver(delivery))] = delivery.lane
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
        for client in self._clients.values():
            await client.aclose()

    def _forget_finished(self) -> None:
        for task in [task for task in self._tasks if task.done()]:
            del self._tasks[task]
            task.result()

    def _claim(self, room: int, in_flight: Counter[str]) -> Sequence[Delivery]:
        with self._db.read() as session:  # a look costs no write lock
            if not repository.anything_due(session):
                return []
        deliveries: list[Delivery] = []
        with self._db.write() as session:
            hand_out(session, configured=self._configured is not None)
            session.flush()
            while len(deliveries) < room:
                busy = [lane for lane, count in in_flight.items() if count >= self._pace.in_flight_to_one]
                row = repository.claim_due(session, busy=busy, seconds=self._pace.claim)
                if row is None:
                    break
                delivery = self._delivery_of(session, row)
                if delivery is not None:
                    deliveries.append(delivery)
                    in_flight[delivery.lane] += 1
        return deliveries

    def _delivery_of(self, session: Session, row: OutboxRow) -> Delivery | None:
        """Return what to post; None, with a note in the row, where there is nobody or nothing to tell."""
        assert row.lane is not None
        target, missing = self._target_of(session, row.lane)
        event = repository.event_of(session, row.payload["event_id"])
        if target is None or event is None:
            outbox.mark_done(session, row.seq, error=missing or "there is no such event any more")
            return None
        body = body_of(event.id, event.type, int(event.created_at), event.object_id)
        job = jobs.by_id(session, event.object_id)
        trace = job and job.traceparent
        return Delivery(row.seq, row.lane, event.id, event.type, body, row.attempts + 1, target, event.object_id, trace)

    def _target_of(self, session: Session, lane: str) -> tuple[Target | None, str | None]:
        if lane == CONFIGURED_LANE:
            return self._configured, None if self._configured else "no webhook endpoint is configured"
        endpoint = repository.by_id(session, lane)
        if endpoint is None or endpoint.disabled_at is not None:
            return None, "the endpoint was deleted or disabled"
        return target_of(endpoint, self._vault, repository.now(session)), None

    async def _deliver(self, delivery: Delivery) -> None:
        client = self._client_for(delivery.target)
        about_it = {"burnish.job.id": delivery.object_id, "burnish.webhook.tries": delivery.tries}
        with tracing.span("deliver webhook", about_it, parent=delivery.traceparent, kind="client") as current:
            outcome = await post(client, delivery.target, delivery.event_id, delivery.body, timeout=self._pace.timeout)
            if current is not None:
                current.set_attribute("http.response.status_code", outcome.status_code or 0)
            await asyncio.to_thread(self._note, delivery, outcome)

    def _client_for(self, target: Target) -> httpx.AsyncClient:
        guarded = target.endpoint_id is not None
        if guarded not in self._clients:
            self._clients[guarded] = (
                guarded_client(self._guard, self._pace.timeout)
                if guarded
                else httpx.AsyncClient(follow_redirects=False, timeout=self._pace.timeout)
            )
        return self._clients[guarded]

    def _note(self, delivery: Delivery, outcome: Outcome) -> None:
        delay = None if outcome.gone else next_delay(delivery.tries, outcome.retry_after, self._pace.delays)
        with self._db.write() as session:
            endpoint_id = delivery.target.endpoint_id
            endpoint = repository.by_id(session, endpoint_id, lock=True) if endpoint_id else None
            if endpoint_id is None or endpoint is not None:  # a deleted endpoint's log is gone
                repository.add_attempt(session, delivery.target, delivery.event_id, delivery.kind, outcome)
            if outcome.error is None:
                outbox.mark_done(session, delivery.seq)
            elif delay is None:
                outbox.mark_done(session, delivery.seq, error=f"given up after {delivery.tries}: {outcome.error}")
            else:
                outbox.mark_failed(session, delivery.seq, error=outcome.error, retry_in=delay)
            if endpoint is not None:
                health.note(session, endpoint, outcome)
        with about(delivery.object_id):
            _tell(delivery, outcome, delay)


def _tell(delivery: Delivery, outcome: Outcome, delay: float | None) -> None:
    what = f"webhook {delivery.event_id} ({delivery.kind}) to {delivery.lane}"
    metrics.WEBHOOK_SECONDS.observe(outcome.duration_ms / 1000)
    if outcome.error is None:
        metrics.WEBHOOK_ATTEMPTS.labels("delivered").inc()
        _log.info("%s was delivered", what)
    elif delay is None:
        metrics.WEBHOOK_ATTEMPTS.labels("given_up").inc()
        _log.error("%s is given up after %d tries: %s", what, delivery.tries, outcome.error)
    else:
        metrics.WEBHOOK_ATTEMPTS.labels("failed").inc()
        _log.warning("%s failed: %s; next try in %d s", what, outcome.error, delay)
