"""Projects take turns at deliveries, on both databases: receivers and names that hang cost their own project alone."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator, Sequence

import pytest
from sqlalchemy import select, update

from service.context import Context
from service.keys.service import Principal
from service.kit import outbox
from service.kit.db import db_now
from service.kit.networks import AllowedNetworks
from service.kit.outbox import OutboxRow, Topic
from service.tables.jobs import JobRow, JobState
from service.tables.keys import ProjectRow
from service.tables.webhooks import WebhookEventRow
from service.webhooks import repository
from service.webhooks.fan_out import CONFIGURED_LANE, hand_out, send_to
from service.webhooks.guard import WebhookGuard
from service.webhooks.lanes import DeliveryLane, DeliveryPace, DeliveryTurns, fetch_due_lanes
from service.webhooks.resolver import NameResolver
from service.webhooks.sender import WebhookSender
from service.webhooks.service import NewEndpoint
from service.webhooks.target import DeliveryTarget
from tests.service.controller.conftest import MakeJob
from tests.service.webhooks.conftest import Receiver
from tests.service.webhooks.world import (
    OTHER,
    PRINCIPAL,
    context,
    end_job,
    log_of,
    make,
    row_of,
    set_endpoint,
)

__all__ = ["context", "end_job"]


def tell(context: Context, made: NewEndpoint, times: int = 1) -> None:
    """Have events delivered to an endpoint."""
    with context.db.write() as session:
        for _ in range(times):
            event = WebhookEventRow(
                id=f"evt_{made.endpoint.id}_{session.info.setdefault('n', 0)}",
                project_id=made.endpoint.project_id,
                type="fine_tuning.job.cancelled",
                object_id="ftjob-a",
                created_at=0,
            )
            session.info["n"] += 1
            session.add(event)
            send_to(session, made.endpoint.id, event.id)


def deliver_until(
    context: Context, made: NewEndpoint, pace: DeliveryPace, guard: WebhookGuard | None = None, **given: DeliveryTarget
) -> None:
    """Run slices until something was delivered to an endpoint, whatever is still in flight then."""

    async def run() -> None:
        sender = WebhookSender(context, given.get("configured"), pace, guard)
        try:
            async with asyncio.timeout(30):
                while not any(row.error is None for row in log_of(context, made)):
                    await sender.start_due_deliveries()
                    await asyncio.sleep(0.02)
        finally:
            await sender.close()

    asyncio.run(run())


@pytest.mark.parametrize("endpoints", [1, 12])
def test_receivers_that_hang_leave_room_for_another_project(
    context: Context, receiver: Receiver, endpoints: int
) -> None:
    receiver.hang_on = lambda request: request.path.endswith("/hangs")
    for _ in range(endpoints):
        tell(context, make(context, receiver.url + "/hangs"), 5)
    other = make(context, receiver.url, OTHER)
    tell(context, other)
    deliver_until(context, other, DeliveryPace(timeout=60, in_flight=6))
    hanging = [request for request in receiver.received if request.path.endswith("/hangs")]
    assert len(hanging) == min(2 * endpoints, 4)


@pytest.fixture
def hanging_names() -> Iterator[WebhookGuard]:
    """A guard for which every name but `hooks.internal` hangs."""
    let_go = threading.Event()

    def look_up(host: str, _port: int) -> Sequence[str]:
        if host != "hooks.internal":
            let_go.wait(30)
        return ["127.0.0.1"]

    yield WebhookGuard(AllowedNetworks.parse("127.0.0.0/8"), NameResolver(look_up, seconds=0.3))
    let_go.set()


def test_names_that_never_resolve_hold_up_neither_claims_nor_another_project(
    context: Context, receiver: Receiver, hanging_names: WebhookGuard
) -> None:
    for number in range(20):
        tell(context, make(context, f"http://never{number}.example/hook"), 2)
    other = make(context, receiver.url.replace("127.0.0.1", "hooks.internal"), OTHER)
    tell(context, other)
    deliver_until(context, other, DeliveryPace(timeout=60), hanging_names)
    assert len(receiver.received) == 1


def test_an_endpoint_that_answers_comes_before_the_projects_other_ones_that_failed(
    context: Context, receiver: Receiver
) -> None:
    receiver.hang_on = lambda request: request.path.endswith("/hangs")
    for _ in range(6):
        failing = make(context, receiver.url + "/hangs")
        set_endpoint(context, failing, failing_since=1.0)
        tell(context, failing, 2)
    good = make(context, receiver.url)
    tell(context, good)
    deliver_until(context, good, DeliveryPace(timeout=60, in_flight_to_project=1))
    assert row_of(context, good).failing_since is None


def test_the_settings_receiver_has_places_that_no_project_takes(
    context: Context, receiver: Receiver, configured: DeliveryTarget, make_job: MakeJob
) -> None:
    receiver.hang_on = lambda request: request.path.endswith("/hangs")
    for owner in (PRINCIPAL, OTHER):
        for _ in range(3):
            tell(context, make(context, receiver.url + "/hangs", owner), 2)
    job_id = make_job(state=JobState.SUCCEEDED, finished_at=1.0)

    async def run() -> None:
        sender = WebhookSender(context, configured, DeliveryPace(timeout=60, in_flight=2))
        try:
            assert await sender.start_due_deliveries() == 2
            with context.db.write() as session:
                outbox.add_effect(session, Topic.TELL_WEBHOOKS, event_id="evt_own", type="t", object_id=job_id)
            async with asyncio.timeout(30):
                while True:
                    await sender.start_due_deliveries()
                    with context.db.read() as session:
                        if any(row.endpoint_id is None for row in repository.attempts_of(session, "evt_own")):
                            return
                    await asyncio.sleep(0.02)
        finally:
            await sender.close()

    asyncio.run(run())


def test_one_projects_flood_of_events_is_handed_out_in_turns(
    context: Context, receiver: Receiver, make_job: MakeJob
) -> None:
    make(context, receiver.url, OTHER)
    flood, single = (
        make_job(state=JobState.CANCELLED, finished_at=1.0),
        make_job(state=JobState.CANCELLED, finished_at=1.0),
    )
    with context.db.write() as session:
        session.execute(update(JobRow).where(JobRow.id == single).values(project_id=OTHER.project_id))
        kind = "fine_tuning.job.cancelled"
        for number in range(300):
            lane = PRINCIPAL.project_id
            outbox.add_effect(
                session, Topic.TELL_WEBHOOKS, lane=lane, event_id=f"e{number}", type=kind, object_id=flood
            )
        outbox.add_effect(
            session, Topic.TELL_WEBHOOKS, lane=OTHER.project_id, event_id="last", type=kind, object_id=single
        )
    with context.db.write() as session:
        hand_out(session, has_server_target=False)
    with context.db.read() as session:
        assert repository.event_of(session, "last") is not None
        left = session.scalars(select(OutboxRow).where(OutboxRow.done_at.is_(None))).all()
        assert [row.topic for row in left].count(Topic.TELL_WEBHOOKS) == 201


def test_due_lanes_have_their_project_and_health(context: Context, receiver: Receiver) -> None:
    first, second, later = make(context, receiver.url), make(context, receiver.url, OTHER), make(context, receiver.url)
    set_endpoint(context, second, failing_since=5.0)
    for made in (first, second, later):
        tell(context, made, 2)
    with context.db.write() as session:
        send_to(session, CONFIGURED_LANE, "evt_x")
        outbox.add_effect(session, Topic.SEND_WEBHOOK, lane="whe_gone", event_id="evt_y")
        session.execute(update(OutboxRow).where(OutboxRow.lane == later.endpoint.id).values(due_at=db_now() + 60))
    with context.db.read() as session:
        found = {(lane.name, lane.project_id, lane.failing) for lane in fetch_due_lanes(session)}
    assert found == {
        (first.endpoint.id, PRINCIPAL.project_id, False),
        (second.endpoint.id, OTHER.project_id, True),
        (CONFIGURED_LANE, CONFIGURED_LANE, False),
        ("whe_gone", "whe_gone", False),
    }


def lanes(project: str, count: int, *, failing: bool = False) -> list[DeliveryLane]:
    return [DeliveryLane(f"{project}.{number}", project, failing, float(number)) for number in range(count)]


def test_the_choice_goes_round_the_projects_within_their_caps() -> None:
    pace = DeliveryPace(in_flight=10, in_flight_to_project=3, in_flight_to_one=1)
    chosen = DeliveryTurns(pace).choose_lanes([*lanes("a", 9), *lanes("b", 2), *lanes("c", 1)], [])
    assert [lane.project_id for lane in chosen] == ["a", "b", "c", "a", "b", "a"]
    turns = DeliveryTurns(DeliveryPace(in_flight=2, in_flight_to_one=1))
    due = [*lanes("a", 3), *lanes("b", 3), *lanes("c", 3)]
    assert [[lane.project_id for lane in turns.choose_lanes(due, [])] for _ in range(3)] == [
        ["a", "b"],
        ["c", "a"],
        ["b", "c"],
    ]


def test_endpoints_that_fail_take_half_of_the_places_and_come_last() -> None:
    pace = DeliveryPace(in_flight=8, in_flight_to_project=8, in_flight_to_one=1)
    due = [*lanes("a", 9, failing=True), *lanes("b", 2)]
    chosen = DeliveryTurns(pace).choose_lanes(due, [])
    assert [lane.failing for lane in chosen] == [False] * 2 + [True] * 4
    assert DeliveryTurns(pace).choose_lanes(due[:9], chosen) == []


def test_a_deleted_projects_lane_is_not_in_the_way(context: Context, receiver: Receiver) -> None:
    third = Principal("proj_第三", "key_c")
    with context.db.write() as session:
        session.add(ProjectRow(id=third.project_id, name="第三"))
        outbox.add_effect(session, Topic.SEND_WEBHOOK, lane="whe_gone", event_id="evt_y")
    made = make(context, receiver.url, third)
    tell(context, made)
    deliver_until(context, made, DeliveryPace())
    with context.db.read() as session:
        gone = session.scalars(select(OutboxRow).where(OutboxRow.lane == "whe_gone")).one()
    assert gone.done_at is not None
