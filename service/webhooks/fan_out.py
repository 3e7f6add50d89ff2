"""Fans an event out: one delivery for each subscribed receiver, in one transaction."""

from __future__ import annotations

from sqlalchemy.orm import Session

from service.jobs import repository as jobs
from service.kit import outbox
from service.kit.outbox import OutboxRow, Topic
from service.tables.webhooks import WebhookEventRow
from service.webhooks import repository

CONFIGURED_LANE = "settings"
"""The lane of the receiver that the settings name."""
_AT_ONCE = 100


def hand_out(session: Session, *, has_server_target: bool) -> None:
    """Turn what happened into events and deliveries; `has_server_target` is whether the settings name a receiver."""
    for row in repository.fetch_due_in_turns(session, limit=_AT_ONCE):
        if repository.take_delivery(session, row):
            _hand_out_event(session, row, has_server_target=has_server_target)


def _hand_out_event(session: Session, row: OutboxRow, *, has_server_target: bool) -> None:
    job = jobs.by_id(session, row.payload["object_id"])
    if job is None or job.finished_at is None:
        outbox.mark_done(session, row.seq, error="no ended job has this id")
        return
    event = WebhookEventRow(
        id=row.payload["event_id"],
        project_id=job.project_id,
        type=row.payload["type"],
        object_id=job.id,
        created_at=job.finished_at,
    )
    session.add(event)
    if has_server_target:
        send_to(session, CONFIGURED_LANE, event.id)
    for endpoint in repository.fetch_enabled_endpoints(session, job.project_id):
        if event.type in endpoint.event_types:
            send_to(session, endpoint.id, event.id)


def send_to(session: Session, lane: str, event_id: str) -> None:
    """Ask for the delivery of an event to an endpoint, or to the settings' receiver."""
    outbox.add_effect(session, Topic.SEND_WEBHOOK, lane=lane, event_id=event_id)
