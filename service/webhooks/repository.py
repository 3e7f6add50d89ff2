"""SQL of deliveries."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from service.kit import outbox
from service.kit.db import db_now
from service.kit.outbox import OutboxRow
from service.webhooks.tables import WebhookAttempt


def claim_due(session: Session, *, limit: int, seconds: float) -> Sequence[OutboxRow]:
    """Return the events whose time has come, taken from other senders for `seconds`.

    One whose sender dies before it notes the outcome is due again after that.
    """
    claimed: list[OutboxRow] = []
    for row in outbox.due(session, outbox.Topic.SEND_WEBHOOK, limit=limit):
        taken = session.execute(
            update(OutboxRow)
            .where(OutboxRow.seq == row.seq, OutboxRow.done_at.is_(None), OutboxRow.due_at <= db_now())
            .values(due_at=db_now() + seconds)
            .returning(OutboxRow.seq)
        )
        if taken.first() is not None:
            claimed.append(row)
    return claimed


def attempts_of(session: Session, event_id: str) -> Sequence[WebhookAttempt]:
    """Return the tries to deliver an event, oldest first."""
    query = select(WebhookAttempt).where(WebhookAttempt.event_id == event_id).order_by(WebhookAttempt.seq)
    return session.scalars(query).all()
