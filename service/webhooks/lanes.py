"""Whose delivery is next: projects take turns, and endpoints that answer come before those that failed lately."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from service.kit.db import db_now
from service.kit.outbox import OutboxRow, Topic
from service.tables.webhooks import WebhookEndpointRow
from service.webhooks.fan_out import CONFIGURED_LANE
from service.webhooks.schedule import RETRY_DELAYS


@dataclass(frozen=True)
class DeliveryPace:
    """How deliveries are made by one controller. Times in seconds."""

    timeout: float = 15.0
    in_flight: int = 64
    """How many deliveries to endpoints of projects are in flight at once."""
    in_flight_to_project: int = 4
    """How many of them are to the endpoints of one project."""
    in_flight_to_one: int = 2
    """How many are to one receiver. The settings' receiver has this many places beside those of the projects."""
    claimed_at_once: int = 32
    delays: tuple[float, ...] = RETRY_DELAYS

    @property
    def in_flight_failing(self) -> int:
        """How many are to endpoints that failed lately, so that those that hang leave room for those that answer."""
        return max(self.in_flight // 2, 1)

    @property
    def claim(self) -> float:
        """How long an event in flight is withheld from other senders: a try, and the time to note its outcome."""
        return self.timeout * 2


class DeliveryLane(NamedTuple):
    """A receiver with a delivery that is due, or in flight."""

    name: str
    """The endpoint's id, or that of the settings' receiver."""
    project_id: str
    failing: bool
    due_at: float = 0.0
    """When its oldest delivery was due."""


def fetch_due_lanes(session: Session) -> list[DeliveryLane]:
    """Return the receivers with a delivery that is due. The cost grows with the receivers, not with the deliveries."""
    pending = (OutboxRow.topic == Topic.SEND_WEBHOOK, OutboxRow.done_at.is_(None))
    first = select(OutboxRow.lane.label("lane")).where(*pending).order_by(OutboxRow.lane).limit(1)
    # A skip scan of the index, since a receiver that is down may have thousands of deliveries pending.
    lanes = select(first.scalar_subquery().label("lane")).cte("lanes", recursive=True)
    following = first.where(OutboxRow.lane > lanes.c.lane).scalar_subquery()
    lanes = lanes.union_all(select(following).where(lanes.c.lane.is_not(None)))
    head = select(func.min(OutboxRow.due_at)).where(*pending, OutboxRow.lane == lanes.c.lane).scalar_subquery()
    lane_heads = select(lanes.c.lane, head.label("due_at")).where(lanes.c.lane.is_not(None)).subquery()
    query = (
        select(lane_heads.c.lane, lane_heads.c.due_at, WebhookEndpointRow.project_id, WebhookEndpointRow.failing_since)
        .outerjoin(WebhookEndpointRow, WebhookEndpointRow.id == lane_heads.c.lane)
        .where(lane_heads.c.due_at <= db_now())
    )
    return [
        DeliveryLane(row.lane, row.project_id or row.lane, row.failing_since is not None, row.due_at)
        for row in session.execute(query)
    ]


class DeliveryTurns:
    """Chooses the lanes to deliver to next. It remembers the projects' last turns while its process lives."""

    def __init__(self, pace: DeliveryPace) -> None:
        self._pace = pace
        self._last: dict[str, int] = {}
        self._count = 0

    def choose_lanes(self, due_lanes: Sequence[DeliveryLane], in_flight: Sequence[DeliveryLane]) -> list[DeliveryLane]:
        """Return the lanes of the deliveries to start now, one for each; some may turn out to have none left."""
        taken_places = _TakenPlaces(in_flight)
        chosen_lanes: list[DeliveryLane] = []
        # One lane at a time, because each choice changes the rank of the project's other lanes.
        while len(chosen_lanes) < self._pace.claimed_at_once:
            free = [lane for lane in due_lanes if taken_places.leaves_room_for(lane, self._pace)]
            if not free:
                break
            lane = min(free, key=lambda lane: self._rank_lane(lane, taken_places))
            chosen_lanes.append(lane)
            taken_places.add_lane(lane)
            self._count += 1
            self._last[lane.project_id] = self._count
        self._forget_idle(due_lanes, taken_places)
        return chosen_lanes

    def _rank_lane(self, lane: DeliveryLane, taken_places: _TakenPlaces) -> tuple[bool, int, int, int, float]:
        of_project, of_lane = taken_places.projects[lane.project_id], taken_places.lanes[lane.name]
        # Failing lanes last, since one that hangs holds its place for the whole timeout; then by fairness, then by age.
        return lane.failing, of_project, self._last.get(lane.project_id, 0), of_lane, lane.due_at

    def _forget_idle(self, due_lanes: Sequence[DeliveryLane], taken_places: _TakenPlaces) -> None:
        # Cleaned now and then: an entry costs nothing but memory.
        if len(self._last) > 10_000:
            busy = {lane.project_id for lane in due_lanes} | taken_places.projects.keys()
            self._last = {project: turn for project, turn in self._last.items() if project in busy}


class _TakenPlaces:
    """The places that are taken, by the deliveries in flight and those that were just chosen."""

    def __init__(self, in_flight: Sequence[DeliveryLane]) -> None:
        self.lanes: Counter[str] = Counter()
        self.projects: Counter[str] = Counter()
        self._all = self._failing = 0
        for lane in in_flight:
            self.add_lane(lane)

    def add_lane(self, lane: DeliveryLane) -> None:
        self.lanes[lane.name] += 1
        self.projects[lane.project_id] += 1
        if lane.name != CONFIGURED_LANE:
            self._all += 1
            self._failing += lane.failing

    def leaves_room_for(self, lane: DeliveryLane, pace: DeliveryPace) -> bool:
        if self.lanes[lane.name] >= pace.in_flight_to_one:
            return False
        if lane.name == CONFIGURED_LANE:
            return True
        if self._all >= pace.in_flight or self.projects[lane.project_id] >= pace.in_flight_to_project:
            return False
        return not lane.failing or self._failing < pace.in_flight_failing
