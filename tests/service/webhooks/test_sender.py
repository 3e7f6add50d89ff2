from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import openai
import pytest
from sqlalchemy import select, update
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from service.context import Context
from service.controller.webhooks import WebhookStep
from service.kit import ids, outbox
from service.kit.db import db_now
from service.kit.outbox import OutboxRow, Topic
from service.tables.jobs import JobState
from service.tables.webhooks import WebhookAttemptRow
from service.webhooks import repository
from service.webhooks.fan_out import hand_out
from service.webhooks.lanes import DeliveryPace
from service.webhooks.schedule import RETRY_DELAYS
from service.webhooks.sender import WebhookSender
from service.webhooks.target import DeliveryTarget
from tests.service.controller.conftest import MakeJob
from tests.service.webhooks.conftest import SECRET, Answer, Receiver

MakeEvent = Callable[..., str]
TELL = Topic.TELL_WEBHOOKS


@pytest.fixture
def make_event(context: Context, make_job: MakeJob) -> MakeEvent:
    """Hand out the end of a job to the settings' receiver; return the event's id."""

    def make(job_id: str | None = None) -> str:
        job_id = make_job(state=JobState.SUCCEEDED, finished_at=1_700_000_000.9, id=job_id)
        event_id = ids.new_id(ids.WEBHOOK_EVENT)
        with context.db.write() as session:
            outbox.add_effect(session, TELL, event_id=event_id, type="fine_tuning.job.succeeded", object_id=job_id)
            session.flush()
            hand_out(session, has_server_target=True)
        return event_id

    return make


def send(
    context: Context,
    configured: DeliveryTarget | None,
    *,
    timeout: float = 10,
    delays: tuple[float, ...] = RETRY_DELAYS,
) -> int:
    """Deliver once what is due, as one pass of the controller does."""

    async def run() -> int:
        sender = WebhookSender(context, configured, DeliveryPace(timeout=timeout, delays=delays))
        try:
            count = await sender.start_due_deliveries()
            await sender.wait_for_deliveries()
            return count
        finally:
            await sender.close()

    return asyncio.run(run())


def row_of(context: Context, event_id: str) -> OutboxRow:
    with context.db.read() as session:
        rows = session.scalars(select(OutboxRow).where(OutboxRow.topic == Topic.SEND_WEBHOOK)).all()
    return next(row for row in rows if row.payload["event_id"] == event_id)


def attempts_of(context: Context, event_id: str) -> Sequence[WebhookAttemptRow]:
    with context.db.read() as session:
        return repository.attempts_of(session, event_id)


def due_in(context: Context, event_id: str) -> float:
    """Return in how many seconds, by the database's clock, the next try is due."""
    with context.db.read() as session:
        now = session.scalar(select(db_now()))
    assert now is not None
    return row_of(context, event_id).due_at - now


def make_due(context: Context) -> None:
    with context.db.write() as session:
        session.execute(update(OutboxRow).values(due_at=db_now() - 1))


def test_a_delivery_is_signed_so_that_both_libraries_take_it(
    context: Context, receiver: Receiver, configured: DeliveryTarget, make_event: MakeEvent
) -> None:
    event_id = make_event("ftjob-测试一二三")
    assert send(context, configured) == 1
    (request,) = receiver.received
    assert "测试一二三" in request.body.decode()
    expected = {
        "id": event_id,
        "object": "event",
        "type": "fine_tuning.job.succeeded",
        "created_at": 1_700_000_000,
        "data": {"id": "ftjob-测试一二三"},
    }
    assert Webhook(SECRET).verify(request.body, request.headers) == expected
    with openai.OpenAI(api_key="k", webhook_secret=SECRET) as client:
        event = client.webhooks.unwrap(request.body, request.headers)
        client.webhooks.verify_signature(request.body, request.headers)
    assert event.type == "fine_tuning.job.succeeded"
    assert event.data.id == "ftjob-测试一二三"
    assert request.headers["webhook-id"] == event_id
    assert request.headers["content-type"] == "application/json"
    assert request.path == "/%E9%92%A9%E5%AD%90"
    (attempt,) = attempts_of(context, event_id)
    assert (attempt.status_code, attempt.error, attempt.url) == (204, None, receiver.url)
    assert attempt.duration_ms >= 0
    assert send(context, configured) == 0


def test_a_changed_body_does_not_verify(
    context: Context, receiver: Receiver, configured: DeliveryTarget, make_event: MakeEvent
) -> None:
    make_event()
    send(context, configured)
    (request,) = receiver.received
    changed = request.body.replace(b"succeeded", b"cancelled")
    with pytest.raises(WebhookVerificationError):
        Webhook(SECRET).verify(changed, request.headers)
    with (
        openai.OpenAI(api_key="k", webhook_secret=SECRET) as client,
        pytest.raises(openai.InvalidWebhookSignatureError),
    ):
        client.webhooks.unwrap(changed, request.headers)


def test_a_failure_is_tried_again_with_the_same_id_and_body_and_a_signature_of_its_own(
    context: Context, receiver: Receiver, configured: DeliveryTarget, make_event: MakeEvent
) -> None:
    event_id = make_event()
    receiver.answers = [Answer(500)]
    send(context, configured)
    assert row_of(context, event_id).done_at is None
    assert 0 < due_in(context, event_id) <= 5
    assert send(context, configured) == 0
    make_due(context)
    assert send(context, configured) == 1
    first, second = receiver.received
    assert first.headers["webhook-id"] == second.headers["webhook-id"] == event_id
    assert first.body == second.body
    for request in (first, second):
        assert abs(int(request.headers["webhook-timestamp"]) - request.at) < 60
        Webhook(SECRET).verify(request.body, request.headers)
    assert row_of(context, event_id).done_at is not None
    assert [attempt.status_code for attempt in attempts_of(context, event_id)] == [500, 204]


@pytest.mark.slow
def test_the_schedule_to_its_end(
    context: Context, receiver: Receiver, configured: DeliveryTarget, make_event: MakeEvent
) -> None:
    event_id = make_event()
    receiver.answers = [Answer(503)] * 20
    for delay in RETRY_DELAYS:
        send(context, configured)
        assert delay - 60 < due_in(context, event_id) <= delay
        make_due(context)
    send(context, configured)
    row = row_of(context, event_id)
    assert row.done_at is not None
    assert row.error == "given up after 10: answered 503"
    assert send(context, configured) == 0
    assert len(attempts_of(context, event_id)) == len(receiver.received) == 10


def test_gone_is_given_up_at_once(
    context: Context, receiver: Receiver, configured: DeliveryTarget, make_event: MakeEvent
) -> None:
    event_id = make_event()
    receiver.answers = [Answer(410)]
    send(context, configured)
    row = row_of(context, event_id)
    assert row.done_at is not None
    assert row.error == "given up after 1: answered 410"


@pytest.mark.slow
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_a_failure_and_not_followed(
    context: Context, receiver: Receiver, configured: DeliveryTarget, make_event: MakeEvent, status: int
) -> None:
    event_id = make_event()
    receiver.answers = [Answer(status, {"Location": "/elsewhere"})]
    send(context, configured)
    assert len(receiver.received) == 1
    (attempt,) = attempts_of(context, event_id)
    assert attempt.status_code == status
    assert attempt.error is not None
    assert "redirect to /elsewhere" in attempt.error
    assert row_of(context, event_id).done_at is None


def _in_an_hour() -> str:
    return format_datetime(datetime.now(UTC) + timedelta(hours=1), usegmt=True)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("retry_after", "at_least", "at_most"),
    [
        ("600", 500, 600),
        (_in_an_hour, 3000, 3600),
        ("99999999", 86000, 86400),
        ("1", 0, 5),
        ("-5", 0, 5),
        ("soon", 0, 5),
        ("nan", 0, 5),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 0, 5),
    ],
)
def test_retry_after_is_honoured_within_bounds(
    context: Context,
    receiver: Receiver,
    configured: DeliveryTarget,
    make_event: MakeEvent,
    retry_after: str | Callable[[], str],
    at_least: float,
    at_most: float,
) -> None:
    event_id = make_event()
    value = retry_after if isinstance(retry_after, str) else retry_after()
    receiver.answers = [Answer(429, {"Retry-After": value})]
    send(context, configured)
    assert at_least < due_in(context, event_id) <= at_most


def test_a_receiver_that_is_not_there(context: Context, make_event: MakeEvent) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    event_id = make_event()
    send(context, DeliveryTarget(f"http://127.0.0.1:{port}/", (SECRET,)))
    (attempt,) = attempts_of(context, event_id)
    assert attempt.status_code is None
    assert attempt.error is not None
    assert "ConnectError" in attempt.error


def test_a_receiver_that_speaks_no_http(context: Context, make_event: MakeEvent) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def babble() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(65536)
                connection.sendall("你好\r\n\r\n".encode())

        thread = threading.Thread(target=babble)
        thread.start()
        event_id = make_event()
        send(context, DeliveryTarget(f"http://127.0.0.1:{server.getsockname()[1]}/", (SECRET,)))
        thread.join()
    (attempt,) = attempts_of(context, event_id)
    assert attempt.status_code is None
    assert attempt.error is not None
    assert "RemoteProtocolError" in attempt.error


def test_a_receiver_that_drips_its_answer_is_cut_off(context: Context, make_event: MakeEvent) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        stop = threading.Event()

        def drip() -> None:
            connection, _ = server.accept()
            with connection:
                try:
                    connection.sendall(b"HTTP/1.1 200 OK\r\nx-slow: ")
                    while not stop.wait(0.02):
                        connection.sendall(b"x")
                except OSError:
                    pass

        thread = threading.Thread(target=drip)
        thread.start()
        event_id = make_event()
        send(context, DeliveryTarget(f"http://127.0.0.1:{server.getsockname()[1]}/", (SECRET,)), timeout=0.5)
        stop.set()
        thread.join()
    (attempt,) = attempts_of(context, event_id)
    assert attempt.error == "no answer within 0.5 s"


def test_a_hanging_delivery_holds_up_no_other_and_is_in_flight_once(
    context: Context, receiver: Receiver, configured: DeliveryTarget, make_event: MakeEvent
) -> None:
    hanging = make_event()
    receiver.hang_on = lambda request: request.headers["webhook-id"] == hanging

    async def run() -> str:
        sender = WebhookSender(context, configured, DeliveryPace(timeout=30))
        try:
            assert await sender.start_due_deliveries() == 1
            other = make_event()
            while row_of(context, other).done_at is None:
                await sender.start_due_deliveries()
                await asyncio.sleep(0.01)
            assert row_of(context, hanging).done_at is None
            receiver.release.set()
            await sender.wait_for_deliveries()
            return other
        finally:
            await sender.close()

    other = asyncio.run(run())
    assert row_of(context, hanging).done_at is not None
    got = [request.headers["webhook-id"] for request in receiver.received]
    assert sorted(got) == sorted([hanging, other])


def test_no_more_are_in_flight_than_allowed(
    context: Context, receiver: Receiver, configured: DeliveryTarget, make_event: MakeEvent
) -> None:
    for _ in range(5):
        make_event()
    receiver.hang_on = lambda _: True

    async def run() -> list[int]:
        sender = WebhookSender(context, configured, DeliveryPace(timeout=30, in_flight=2))
        try:
            started = [await sender.start_due_deliveries(), await sender.start_due_deliveries()]
            receiver.release.set()
            await sender.wait_for_deliveries()
            return [*started, await sender.start_due_deliveries()]
        finally:
            await sender.wait_for_deliveries()
            await sender.close()

    assert asyncio.run(run()) == [2, 0, 2]


@pytest.mark.slow
def test_a_sender_that_was_stopped_in_the_middle_is_followed_by_one_that_delivers_again(
    context: Context, receiver: Receiver, configured: DeliveryTarget, make_event: MakeEvent
) -> None:
    event_id = make_event()
    receiver.hang_on = lambda _: not receiver.release.is_set()

    async def stopped_in_the_middle() -> None:
        sender = WebhookSender(context, configured, DeliveryPace(timeout=0.5))
        await sender.start_due_deliveries()
        while not receiver.received:
            await asyncio.sleep(0.01)
        await sender.close()

    asyncio.run(stopped_in_the_middle())
    assert attempts_of(context, event_id) == []
    receiver.release.set()
    while row_of(context, event_id).done_at is None:
        send(context, configured, timeout=0.5)
    ids_received = {request.headers["webhook-id"] for request in receiver.received}
    assert (ids_received, len(receiver.received)) == ({event_id}, 2)


def test_without_an_endpoint_events_are_done_with_a_note(context: Context, make_event: MakeEvent) -> None:
    event_id = make_event()
    send(context, None)
    row = row_of(context, event_id)
    assert row.done_at is not None
    assert row.error == "no webhook endpoint is configured"
    assert attempts_of(context, event_id) == []


def test_the_step_delivers_on_a_thread_of_its_own(
    context: Context, receiver: Receiver, configured: DeliveryTarget, make_event: MakeEvent
) -> None:
    event_id = make_event()
    step = WebhookStep(context, configured, seconds=0.02)

    def run() -> None:
        while row_of(context, event_id).done_at is None:
            step()
        step.close()

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(30)
    assert not thread.is_alive()
    assert json.loads(receiver.received[0].body)["id"] == event_id


def test_the_secret_is_in_no_repr(configured: DeliveryTarget) -> None:
    assert SECRET not in repr(configured)
