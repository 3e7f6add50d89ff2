"""SQL of endpoints, events and deliveries."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from sqlalchemy import delete, func, select, update
from sqlalchemy.orm import Session

from service.kit.db import db_now
from service.kit.outbox import OutboxRow, Topic
from service.kit.pagination import Order, fetch_page
from service.tables.webhooks import WebhookAttemptRow, WebhookEndpointRow, WebhookEventRow
from service.webhooks.post import DeliveryOutcome
from service.webhooks.target import DeliveryTarget


def database_time(session: Session) -> float:
    """Return the database's time in unix seconds."""
    return session.scalars(select(db_now())).one()


def by_id(session: Session, endpoint_id: str, *, lock: bool = False) -> WebhookEndpointRow | None:
    """Return an endpoint, whoever owns it; with `lock`, withheld from other writers until the transaction ends."""
    query = select(WebhookEndpointRow).where(WebhookEndpointRow.id == endpoint_id)
    return session.scalar(query.with_for_update() if lock else query)


def count_endpoints(session: Session, project_id: str) -> int:
    """Return how many endpoints a project has."""
    query = select(func.count()).select_from(WebhookEndpointRow).where(WebhookEndpointRow.project_id == project_id)
    return session.scalars(query).one()


def fetch_endpoint_page(
    session: Session, project_id: str, *, after: str | None, limit: int, order: Order
) -> tuple[Sequence[WebhookEndpointRow], bool]:
    """Return one page of a project's endpoints. Raises InvalidRequest for an `after` that is not among them."""
    return fetch_page(
        session,
        select(WebhookEndpointRow),
        scope=[(WebhookEndpointRow.project_id, project_id)],
        seq=WebhookEndpointRow.seq,
        public_id=WebhookEndpointRow.id,
        after=after,
        limit=limit,
        order=order,
    )


def fetch_enabled_endpoints(session: Session, project_id: str) -> Sequence[WebhookEndpointRow]:
    """Return a project's enabled endpoints, oldest first."""
    query = select(WebhookEndpointRow).where(
        WebhookEndpointRow.project_id == project_id, WebhookEndpointRow.disabled_at.is_(None)
    )
    return session.scalars(query.order_by(WebhookEndpointRow.seq)).all()


def delete_endpoint_row(session: Session, endpoint: WebhookEndpointRow) -> None:
    """Delete an endpoint with its log; what was still to be delivered is dropped."""
    # Before the endpoint's row goes: a delivery without one would be claimed once more to find that out.
    drop_pending(session, endpoint.id, reason="the endpoint was deleted")
    session.execute(delete(WebhookAttemptRow).where(WebhookAttemptRow.endpoint_id == endpoint.id))
    session.delete(endpoint)


def disable_endpoint(session: Session, endpoint: WebhookEndpointRow, *, reason: str) -> None:
    """Send an endpoint nothing more; pending deliveries are dropped."""
    endpoint.disabled_at = database_time(session)
    endpoint.disabled_reason = reason
    drop_pending(session, endpoint.id, reason="the endpoint was disabled")


def drop_pending(session: Session, endpoint_id: str, *, reason: str) -> None:
    """Mark what was still to be delivered to an endpoint as done, with the reason."""
    session.execute(
        update(OutboxRow)
        .where(OutboxRow.lane == endpoint_id, OutboxRow.done_at.is_(None))
        .values(done_at=db_now(), error=reason)
    )


def pending_deliveries(session: Session, endpoint_id: str) -> Sequence[OutboxRow]:
    """Return what is still to be delivered to an endpoint."""
    query = select(OutboxRow).where(OutboxRow.lane == endpoint_id, OutboxRow.done_at.is_(None))
    return session.scalars(query.order_by(OutboxRow.seq)).all()


def make_due(session: Session, seq: int) -> None:
    """Make a delivery due now."""
    session.execute(update(OutboxRow).where(OutboxRow.seq == seq).values(due_at=db_now()))


def event_of(session: Session, event_id: str) -> WebhookEventRow | None:
    """Return an event, whosever it is."""
    return session.scalar(select(WebhookEventRow).where(WebhookEventRow.id == event_id))


def events_named(session: Session, project_id: str, event_ids: Collection[str]) -> Sequence[WebhookEventRow]:
    """Return those of a project's events that have one of the ids, oldest first."""
    query = select(WebhookEventRow).where(WebhookEventRow.project_id == project_id, WebhookEventRow.id.in_(event_ids))
    return session.scalars(query.order_by(WebhookEventRow.seq)).all()


def events_between(
    session: Session, project_id: str, begin: float, end: float, *, types: Collection[str], limit: int
) -> Sequence[WebhookEventRow]:
    """Return a project's events of some types from `begin` to before `end`, oldest first."""
    query = select(WebhookEventRow).where(
        WebhookEventRow.project_id == project_id,
        WebhookEventRow.created_at >= begin,
        WebhookEventRow.created_at < end,
        WebhookEventRow.type.in_(types),
    )
    return session.scalars(query.order_by(WebhookEventRow.seq).limit(limit)).all()


def take_delivery(session: Session, row: OutboxRow) -> bool:
    """Mark a row as done unless another process was faster."""
    claimed_rows = session.execute(
        update(OutboxRow)
        .where(OutboxRow.seq == row.seq, OutboxRow.done_at.is_(None))
        .values(done_at=db_now())
        .returning(OutboxRow.seq)
    )
    return claimed_rows.first() is not None


def claim_due(session: Session, lane: str, *, seconds: float) -> OutboxRow | None:
    """Return a lane's oldest due delivery, reserved from other senders for `seconds`; None if there is none.

    If the sender dies before it records the outcome, the delivery is due again after that.
    """
    due_rows = (
        select(OutboxRow.seq)
        .where(
            OutboxRow.topic == Topic.SEND_WEBHOOK,
            OutboxRow.lane == lane,
            OutboxRow.done_at.is_(None),
            OutboxRow.due_at <= db_now(),
        )
        .order_by(OutboxRow.due_at, OutboxRow.seq)
        .limit(1)
        # Skips what another sender is claiming at this moment instead of waiting for it. SQLite ignores the clause:
        # there is one writer.
        .with_for_update(skip_locked=True)
    )
    seq = session.scalar(due_rows)
    if seq is None:
        return None
    # The claim is only a later `due_at`: a sender that dies leaves nothing to clean up.
    session.execute(update(OutboxRow).where(OutboxRow.seq == seq).values(due_at=db_now() + seconds))
    return session.scalars(select(OutboxRow).where(OutboxRow.seq == seq)).one()


def fetch_due_in_turns(session: Session, *, limit: int) -> Sequence[OutboxRow]:
    """Return events to hand out, one of each project before a second of any; of one project the oldest first."""
    pending = (OutboxRow.topic == Topic.TELL_WEBHOOKS, OutboxRow.done_at.is_(None), OutboxRow.due_at <= db_now())
    rank = func.row_number().over(partition_by=OutboxRow.lane, order_by=OutboxRow.seq)
    ranked_rows = select(OutboxRow.seq, rank.label("rank")).where(*pending).subquery()
    query = select(OutboxRow).join(ranked_rows, ranked_rows.c.seq == OutboxRow.seq)
    return session.scalars(query.order_by(ranked_rows.c.rank, OutboxRow.seq).limit(limit)).all()


def add_attempt(
    session: Session, target: DeliveryTarget, event_id: str, event_type: str, outcome: DeliveryOutcome
) -> None:
    """Write a try into the log of deliveries."""
    session.add(
        WebhookAttemptRow(
            endpoint_id=target.endpoint_id,
            event_id=event_id,
            event_type=event_type,
            url=target.shown_url,
            status_code=outcome.status_code,
            error=outcome.error and target.censor_text(outcome.error),
            duration_ms=outcome.duration_ms,
        )
    )


def attempts_of(session: Session, event_id: str) -> Sequence[WebhookAttemptRow]:
    """Return the tries to deliver an event, to whomever, oldest first."""
    query = select(WebhookAttemptRow).where(WebhookAttemptRow.event_id == event_id).order_by(WebhookAttemptRow.seq)
    return session.scalars(query).all()


def page_of_attempts(
    session: Session, endpoint_id: str, *, after: str | None, limit: int, order: Order
) -> tuple[Sequence[WebhookAttemptRow], bool]:
    """Return one page of an endpoint's deliveries. Raises InvalidRequest for an `after` that is not among them."""
    return fetch_page(
        session,
        select(WebhookAttemptRow),
        scope=[(WebhookAttemptRow.endpoint_id, endpoint_id)],
        seq=WebhookAttemptRow.seq,
        public_id=WebhookAttemptRow.id,
        after=after,
        limit=limit,
        order=order,
    )


def forget_events(session: Session, *, age: float) -> None:
    """Drop the events and the log of deliveries that are older than `age` seconds."""
    session.execute(delete(WebhookAttemptRow).where(WebhookAttemptRow.at < db_now() - age))
    session.execute(delete(WebhookEventRow).where(WebhookEventRow.created_at < db_now() - age))
