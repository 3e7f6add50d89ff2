"""Delivers events beside the controller: many in flight, each once, and a slow answer holds up no other delivery."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import dataclass, replace
from functools import partial
from typing import ParamSpec, TypeVar

import httpx
from sqlalchemy.orm import Session

from service.context import Context
from service.jobs import repository as jobs
from service.kit import metrics, outbox, tracing
from service.kit.log import log_subject
from service.kit.outbox import Topic
from service.webhooks import health, repository
from service.webhooks.fan_out import CONFIGURED_LANE, hand_out
from service.webhooks.guard import WebhookGuard, guard_of, make_guarded_client
from service.webhooks.lanes import DeliveryLane, DeliveryPace, DeliveryTurns, fetch_due_lanes
from service.webhooks.message import body_of
from service.webhooks.post import DeliveryOutcome, post_event
from service.webhooks.schedule import next_delay
from service.webhooks.target import DeliveryTarget, target_of
from service.webhooks.vault import Vault

P = ParamSpec("P")
T = TypeVar("T")
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Delivery:
    """One event to post now; `tries` counts this try."""

    seq: int
    lane: DeliveryLane
    event_id: str
    kind: str
    body: bytes
    tries: int
    target: DeliveryTarget
    object_id: str
    traceparent: str | None


class WebhookSender:
    """Hands events out and works off the deliveries, to the endpoints of projects and to the settings' receiver."""

    def __init__(
        self,
        context: Context,
        server_target: DeliveryTarget | None,
        pace: DeliveryPace | None = None,
        guard: WebhookGuard | None = None,
    ) -> None:
        self._db = context.db
        self._vault = Vault(context.hmac_key)
        self._guard = guard or guard_of(context.settings)
        self._configured = server_target
        self._pace = pace or DeliveryPace()
        self._turns = DeliveryTurns(self._pace)
        self._tasks: dict[asyncio.Task[None], DeliveryLane] = {}
        self._clients: dict[bool, httpx.AsyncClient] = {}
        # Of its own, so that no name that is being resolved and no outcome that is noted is ahead of a claim.
        self._claims = ThreadPoolExecutor(1, "webhook-claims")
        self._notes = ThreadPoolExecutor(2, "webhook-notes")

    async def start_due_deliveries(self) -> int:
        """Start the deliveries that are due and there is room for; return how many. Raises Unavailable."""
        # First, so that the places of finished deliveries are free; it also raises what kept an outcome from being
        # noted.
        self._forget_finished()
        in_flight = list(self._tasks.values())
        # SQL blocks, and the event loop has answers of up to 64 receivers to wait for.
        deliveries = await _run_in_executor(self._claims, self._claim_deliveries, in_flight)
        for delivery in deliveries:
            self._tasks[asyncio.create_task(self._deliver_event(delivery))] = delivery.lane
        return len(deliveries)

    async def wait_for_deliveries(self) -> None:
        """Wait for the deliveries in flight. Raises Unavailable if an outcome could not be noted."""
        while self._tasks:
            await asyncio.wait(self._tasks)
            self._forget_finished()

    async def close(self) -> None:
        """Cancel deliveries in flight: the next sender delivers them again, with the same ids."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()
        for client in self._clients.values():
            await client.aclose()
        for executor in (self._claims, self._notes):
            executor.shutdown(wait=False)

    def _forget_finished(self) -> None:
        for task in [task for task in self._tasks if task.done()]:
            del self._tasks[task]
            # Raises Unavailable if the outcome could not be written: the delivery is due again after its claim.
            task.result()

    def _claim_deliveries(self, in_flight: Sequence[DeliveryLane]) -> Sequence[Delivery]:
        with self._db.read() as session:  # a look costs no write lock
            telling = bool(outbox.fetch_due_effects(session, Topic.TELL_WEBHOOKS, limit=1))
        if telling:
            with self._db.write() as session:
                hand_out(session, has_server_target=self._configured is not None)
        with self._db.read() as session:
            # Chosen in a read: with nothing due, which is most of the time, no write lock is taken.
            chosen_lanes = self._turns.choose_lanes(fetch_due_lanes(session), in_flight)
        if not chosen_lanes:
            return []
        with self._db.write() as session:
            deliveries = [self._delivery_in(session, lane) for lane in chosen_lanes]
        return [delivery for delivery in deliveries if delivery is not None]

    def _delivery_in(self, session: Session, lane: DeliveryLane) -> Delivery | None:
        """Claim what to post to a lane; None if there is nothing, or, with a note in the row, no receiver."""
        # Between the choice and this claim another sender may have taken the lane's delivery.
        row = repository.claim_due(session, lane.name, seconds=self._pace.claim)
        if row is None:
            return None
        target, fault = self._target_of(session, lane.name)
        event = repository.event_of(session, row.payload["event_id"])
        if target is None or event is None:
            # Not an error to retry: without a receiver or an event it can never be delivered.
            outbox.mark_done(session, row.seq, error=fault or "the event no longer exists")
            return None
        body = body_of(event.id, event.type, int(event.created_at), event.object_id)
        job = jobs.by_id(session, event.object_id)
        trace = job and job.traceparent
        return Delivery(row.seq, lane, event.id, event.type, body, row.attempts + 1, target, event.object_id, trace)

    def _target_of(self, session: Session, lane: str) -> tuple[DeliveryTarget | None, str | None]:
        if lane == CONFIGURED_LANE:
            return self._configured, None if self._configured else "no webhook endpoint is configured"
        endpoint = repository.by_id(session, lane)
        if endpoint is None or endpoint.disabled_at is not None:
            return None, "the endpoint was deleted or disabled"
        return target_of(endpoint, self._vault, repository.database_time(session)), None

    async def _deliver_event(self, delivery: Delivery) -> None:
        client = self._client_for(delivery.target)
        about_it = {"burnish.job.id": delivery.object_id, "burnish.webhook.tries": delivery.tries}
        with tracing.span("deliver webhook", about_it, parent=delivery.traceparent, kind="client") as current:
            outcome = await post_event(
                client, delivery.target, delivery.event_id, delivery.body, timeout=self._pace.timeout
            )
            if current is not None:
                current.set_attribute("http.response.status_code", outcome.status_code or 0)
            await _run_in_executor(self._notes, self._note_outcome, delivery, outcome)

    def _client_for(self, target: DeliveryTarget) -> httpx.AsyncClient:
        # The settings' receiver is the operator's own choice and may be inside the network.
        is_guarded = target.endpoint_id is not None
        if is_guarded not in self._clients:
            self._clients[is_guarded] = (
                # Made with the first delivery: loading the certificates takes tens of milliseconds.
                make_guarded_client(self._guard, self._pace.timeout)
                if is_guarded
                else httpx.AsyncClient(follow_redirects=False, timeout=self._pace.timeout)
            )
        return self._clients[is_guarded]

    def _note_outcome(self, delivery: Delivery, outcome: DeliveryOutcome) -> None:
        if outcome.error is not None:  # it goes into tables and logs
            outcome = replace(outcome, error=delivery.target.censor_text(outcome.error))
        delay = None if outcome.gone else next_delay(delivery.tries, outcome.retry_after, self._pace.delays)
        with self._db.write() as session:
            endpoint_id = delivery.target.endpoint_id
            # Locked, because the health of one endpoint is written by several deliveries at once.
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
                health.note_outcome(session, endpoint, outcome)
        with log_subject(delivery.object_id):
            _log_outcome(delivery, outcome, delay)


async def _run_in_executor(
    executor: ThreadPoolExecutor, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs
) -> T:
    """Call a function in a thread of an executor, with this task's ids and trace."""
    # `run_in_executor` alone does not copy the context, and logs would lose their ids.
    call = partial(copy_context().run, function, *args, **kwargs)
    return await asyncio.get_running_loop().run_in_executor(executor, call)


def _log_outcome(delivery: Delivery, outcome: DeliveryOutcome, delay: float | None) -> None:
    subject = f"webhook {delivery.event_id} ({delivery.kind}) to {delivery.lane.name}"
    metrics.WEBHOOK_SECONDS.observe(outcome.duration_ms / 1000)
    if outcome.error is None:
        metrics.WEBHOOK_ATTEMPTS.labels("delivered").inc()
        _log.info("%s was delivered", subject)
    elif delay is None:
        metrics.WEBHOOK_ATTEMPTS.labels("given_up").inc()
        _log.error("%s is given up after %d tries: %s", subject, delivery.tries, outcome.error)
    else:
        metrics.WEBHOOK_ATTEMPTS.labels("failed").inc()
        _log.warning("%s failed: %s; next try in %d s", subject, outcome.error, delay)
