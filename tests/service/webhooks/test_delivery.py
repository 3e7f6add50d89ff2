"""From a job's end to the endpoints of its project, on both databases."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import openai
import pytest
from sqlalchemy import text, update

from service.context import Context
from service.kit.db import db_now
from service.kit.errors import Conflict
from service.tables.webhooks import WebhookAttemptRow, WebhookEventRow
from service.webhooks import repository, service
from service.webhooks.lanes import DeliveryPace
from service.webhooks.message import EVENT_TYPES
from service.webhooks.schedule import DISABLE_AFTER, KEEP_OLD_SECRET
from service.webhooks.sender import WebhookSender
from service.webhooks.target import DeliveryTarget
from service.webhooks.vault import Vault
from tests.service.webhooks.conftest import SECRET, Answer, Receiver
from tests.service.webhooks.world import (
    CANCELLED,
    OTHER,
    PRINCIPAL,
    EndJob,
    change,
    context,
    end_job,
    events,
    log_of,
    make,
    make_due,
    opens,
    pending,
    replay,
    row_of,
    send,
    set_endpoint,
)

__all__ = ["context", "end_job"]


@pytest.mark.slow
def test_an_end_goes_to_every_subscribed_endpoint_and_to_the_settings_receiver(
    context: Context, receiver: Receiver, end_job: EndJob
) -> None:
    first, second = make(context, receiver.url + "/1"), make(context, receiver.url + "/2", types=(CANCELLED,))
    make(context, receiver.url + "/3", types=(EVENT_TYPES[0],))
    make(context, receiver.url + "/4", OTHER)
    job_id = end_job()
    assert send(context, DeliveryTarget(receiver.url + "/0", (SECRET,))) == 3
    assert send(context, DeliveryTarget(receiver.url + "/0", (SECRET,))) == 0
    by_path = {request.path[-1]: request for request in receiver.received}
    assert sorted(by_path) == ["0", "1", "2"]
    (event,) = events(context)
    assert (event.project_id, event.type, event.object_id) == (PRINCIPAL.project_id, CANCELLED, job_id)
    for path, secret in (("0", SECRET), ("1", first.secret), ("2", second.secret)):
        request = by_path[path]
        assert request.headers["webhook-id"] == event.id
        with openai.OpenAI(api_key="k", webhook_secret=secret) as client:
            told = client.webhooks.unwrap(request.body, request.headers)
        assert (told.id, told.type, told.data.id) == (event.id, CANCELLED, job_id)
        assert [opens(other, request) for other in (SECRET, first.secret, second.secret)].count(True) == 1
    assert len({request.body for request in receiver.received}) == 1
    (tried,) = log_of(context, first)
    assert (tried.event_id, tried.event_type, tried.status_code, tried.error) == (event.id, CANCELLED, 204, None)
    end_job(OTHER)
    assert send(context) == 1
    assert receiver.received[-1].path.endswith("/4")


def test_each_endpoint_has_retries_of_its_own_under_the_same_id(
    context: Context, receiver: Receiver, end_job: EndJob
) -> None:
    good, bad = make(context, receiver.url + "/good"), make(context, receiver.url + "/bad")
    receiver.answer_to = lambda request: Answer(500) if request.path.endswith("/bad") else None
    end_job()
    assert send(context) == 2
    assert pending(context, good) == []
    (row,) = pending(context, bad)
    assert row.attempts == 1
    assert row_of(context, bad).failing_since is not None
    assert row_of(context, good).failing_since is None
    make_due(context)
    receiver.answer_to = lambda _: None
    assert send(context) == 1
    assert [attempt.status_code for attempt in log_of(context, bad)] == [500, 204]
    assert len(log_of(context, good)) == 1
    assert row_of(context, bad).failing_since is None
    assert len({request.headers["webhook-id"] for request in receiver.received}) == 1


def test_a_hanging_endpoint_leaves_room_for_others(context: Context, receiver: Receiver, end_job: EndJob) -> None:
    hanging = make(context, receiver.url + "/hangs")
    for _ in range(5):
        end_job()
    receiver.hang_on = lambda request: request.path.endswith("/hangs")

    async def run() -> None:
        sender = WebhookSender(context, None, DeliveryPace(timeout=60, in_flight=4))
        try:
            assert await sender.start_due_deliveries() == 2
            assert await sender.start_due_deliveries() == 0
            make(context, receiver.url + "/quick", OTHER)
            end_job(OTHER)
            while not any(request.path.endswith("/quick") for request in receiver.received):
                await sender.start_due_deliveries()
                await asyncio.sleep(0.01)
            assert log_of(context, hanging) == []
            receiver.release.set()
            await sender.wait_for_deliveries()
            while await sender.start_due_deliveries():
                await sender.wait_for_deliveries()
        finally:
            await sender.close()

    asyncio.run(run())
    assert len(log_of(context, hanging)) == 5


def test_gone_disables_at_once_and_an_update_enables_again(
    context: Context, receiver: Receiver, end_job: EndJob
) -> None:
    made = make(context, receiver.url)
    receiver.answers = [Answer(500), Answer(410)]
    end_job()
    end_job()
    send(context, pace=DeliveryPace(in_flight_to_one=1))
    send(context, pace=DeliveryPace(in_flight_to_one=1))
    row = row_of(context, made)
    assert row.disabled_at is not None
    assert row.disabled_reason is not None
    assert "410" in row.disabled_reason
    assert pending(context, made) == []
    end_job()
    make_due(context)
    assert send(context) == 0
    with pytest.raises(Conflict, match="enable it by POST"):
        replay(context, made, event_ids=[events(context)[0].id])
    row = change(context, made)
    assert (row.disabled_at, row.disabled_reason, row.failing_since) == (None, None, None)
    end_job()
    assert send(context) == 1
    assert [attempt.status_code for attempt in log_of(context, made)] == [500, 410, 204]


def test_days_of_failures_alone_disable(context: Context, receiver: Receiver, end_job: EndJob) -> None:
    made = make(context, receiver.url)
    receiver.answers = [Answer(503)] * 3
    end_job()
    send(context)
    set_endpoint(context, made, failing_since=db_now() - DISABLE_AFTER + 3600)
    make_due(context)
    send(context)
    assert row_of(context, made).disabled_at is None
    set_endpoint(context, made, failing_since=db_now() - DISABLE_AFTER - 1)
    make_due(context)
    send(context)
    row = row_of(context, made)
    assert row.disabled_at is not None
    assert row.disabled_reason == "Every delivery failed for 120 hours; the last one: answered 503"
    assert pending(context, made) == []


def test_a_rotation_that_keeps_signs_with_both_for_a_day(context: Context, receiver: Receiver, end_job: EndJob) -> None:
    made = make(context, receiver.url)
    vault = Vault(context.hmac_key)

    def rotate(*, keep: bool) -> str:
        with context.db.write() as session:
            return service.rotate_secret(session, PRINCIPAL, vault, made.endpoint.id, keep_old=keep).secret

    def told() -> Any:
        end_job()
        send(context)
        return receiver.received[-1]

    second = rotate(keep=True)
    request = told()
    assert len(request.headers["webhook-signature"].split(" ")) == 2
    assert opens(made.secret, request)
    assert opens(second, request)
    with openai.OpenAI(api_key="k", webhook_secret=made.secret) as client:
        assert client.webhooks.unwrap(request.body, request.headers).type == CANCELLED
    with context.db.read() as session:
        left = (row_of(context, made).old_secret_until or 0) - repository.database_time(session)
    assert KEEP_OLD_SECRET - 600 < left <= KEEP_OLD_SECRET
    set_endpoint(context, made, old_secret_until=db_now() - 1)
    request = told()
    assert not opens(made.secret, request)
    assert opens(second, request)
    third = rotate(keep=False)
    request = told()
    assert not opens(second, request)
    assert opens(third, request)
    assert row_of(context, made).old_secret is None


def test_secrets_lie_sealed_in_the_database(context: Context) -> None:
    made = make(context, "https://hooks.internal/")
    with context.db.read() as session:
        row = session.execute(text("SELECT * FROM webhook_endpoints")).mappings().one()
    assert made.secret not in json.dumps({name: str(value) for name, value in row.items()})
    assert row["secret_hint"].startswith("whsec_")


def test_a_secret_that_does_not_open_is_reported_and_tried_again(
    context: Context, receiver: Receiver, end_job: EndJob
) -> None:
    made = make(context, receiver.url)
    set_endpoint(context, made, secret=Vault(b"another" * 8).seal(made.secret, made.endpoint.id))
    end_job()
    send(context)
    (attempt,) = log_of(context, made)
    assert attempt.error is not None
    assert "BURNISH_SECRET_KEY" in attempt.error
    assert receiver.received == []
    assert len(pending(context, made)) == 1


def test_private_addresses_are_for_the_operator_alone(context: Context, receiver: Receiver, end_job: EndJob) -> None:
    made = make(context, receiver.url.replace("127.0.0.1", "[::ffff:10.0.0.1]"))
    end_job()
    send(context, DeliveryTarget(receiver.url, (SECRET,)))
    (attempt,) = log_of(context, made)
    assert attempt.error is not None
    assert "not public" in attempt.error
    assert len(receiver.received) == 1
    assert len(pending(context, made)) == 1


def test_a_deleted_endpoint_leaves_nothing_and_what_is_in_flight_ends(
    context: Context, receiver: Receiver, end_job: EndJob
) -> None:
    made = make(context, receiver.url)
    receiver.hang_on = lambda _: True
    end_job()

    async def run() -> None:
        sender = WebhookSender(context, None)
        await sender.start_due_deliveries()
        while not receiver.received:
            await asyncio.sleep(0.01)
        with context.db.write() as session:
            service.remove_endpoint(session, PRINCIPAL, made.endpoint.id)
        receiver.release.set()
        await sender.wait_for_deliveries()
        await sender.close()

    asyncio.run(run())
    assert log_of(context, made) == []
    assert pending(context, made) == []
    with context.db.read() as session:
        assert repository.by_id(session, made.endpoint.id) is None
    end_job()
    assert send(context) == 0


def test_old_events_and_tries_are_forgotten(context: Context, receiver: Receiver, end_job: EndJob) -> None:
    made = make(context, receiver.url)
    end_job()
    send(context)
    with context.db.write() as session:
        repository.forget_events(session, age=3600)
    assert len(events(context)) == len(log_of(context, made)) == 1
    with context.db.write() as session:
        session.execute(update(WebhookEventRow).values(created_at=db_now() - 7200))
        session.execute(update(WebhookAttemptRow).values(at=db_now() - 7200))
        repository.forget_events(session, age=3600)
    assert events(context) == log_of(context, made) == []
