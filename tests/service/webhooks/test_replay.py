"""What was told can be told again, on both databases."""

from __future__ import annotations

import pytest
from sqlalchemy import update

from service.context import Context
from service.tables.webhooks import WebhookEventRow
from service.webhooks.errors import EndpointNotFound, EventNotFound
from service.webhooks.message import EVENT_TYPES
from tests.service.webhooks.conftest import Answer, Receiver
from tests.service.webhooks.world import (
    CANCELLED,
    OTHER,
    EndJob,
    change,
    context,
    end_job,
    events,
    log_of,
    make,
    pending,
    replay,
    send,
)

__all__ = ["context", "end_job"]


def test_replay_by_ids_and_by_time(context: Context, receiver: Receiver, end_job: EndJob) -> None:
    for _ in range(3):
        end_job()
    send(context)
    told = events(context)
    made = make(context, receiver.url)
    with context.db.write() as session:
        for place, event in enumerate(told):
            session.execute(
                update(WebhookEventRow).where(WebhookEventRow.id == event.id).values(created_at=1000.5 + place)
            )
    assert replay(context, made, event_ids=[told[1].id, told[1].id]) == [told[1].id]
    assert send(context) == 1
    assert replay(context, made, **{"from": 1000, "to": 1002.5}) == [told[0].id, told[1].id]
    assert send(context) == 2
    assert [request.headers["webhook-id"] for request in receiver.received].count(told[1].id) == 2
    assert replay(context, made, **{"from": 5000, "to": 6000}) == []
    assert len(log_of(context, made)) == 3


def test_a_replay_hurries_what_waits_and_never_doubles_it(
    context: Context, receiver: Receiver, end_job: EndJob
) -> None:
    made = make(context, receiver.url)
    receiver.answers = [Answer(500)]
    end_job()
    send(context)
    assert send(context) == 0
    replay(context, made, event_ids=[events(context)[0].id])
    assert len(pending(context, made)) == 1
    assert send(context) == 1
    assert pending(context, made) == []


@pytest.mark.slow
def test_replay_takes_the_types_of_the_endpoint_and_the_events_of_the_project(
    context: Context, receiver: Receiver, end_job: EndJob
) -> None:
    end_job()
    end_job(OTHER)
    send(context)
    mine, others = events(context)
    made = make(context, receiver.url, types=(EVENT_TYPES[0],))
    assert replay(context, made, **{"from": 0, "to": 1e11}) == []
    change(context, made, event_types=[CANCELLED])
    assert replay(context, made, **{"from": 0, "to": 1e11}) == [mine.id]
    with pytest.raises(EventNotFound, match=others.id):
        replay(context, made, event_ids=[mine.id, others.id])
    with pytest.raises(EndpointNotFound):
        replay(context, made, OTHER, event_ids=[others.id])
