"""SQL of the order in which queued jobs start.

Between projects workers take turns: first comes the project with the fewest running jobs, of these the one with the
longest time since its last start, of those that never started one the one with the oldest job in front. Within a
project the highest priority comes first, of these the oldest job.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from sqlalchemy import CTE, Row, Subquery, and_, func, literal, or_, select
from sqlalchemy.orm import Session

from service.jobs.repository import IN_TURN, RESTED
from service.kit.project_turns import TurnKind, last_turn
from service.tables.jobs import IN_LINE, JobRow, JobState

_PAGE = 100

Order = tuple[int, int, int, float]
ReadyRow = Row[str, dict[str, Any] | None, int, int]


class ProjectStanding(NamedTuple):
    """What a project's turn goes by, and how many jobs it has to start."""

    project_id: str
    running: int
    last_turn: int
    head: float
    """The number (seq) of the job that it would start first."""
    ready: int

    def order_of(self, rank: int) -> Order:
        """Return what sorts its job number `rank` (from 0) among all: as workers take them if no running job ends.

        When that job starts, `rank` others of the project have started before it, so `running + rank` jobs run.
        Among projects with as many, those that start their first job come before those that have just had a turn,
        and these keep the order of their turns.
        """
        return self.running + rank, rank, self.last_turn, self.head

    def count_before(self, order: Order) -> int:
        """Return how many of the project's jobs come before a place in the order of all."""
        rank = order[0] - self.running  # of the job that starts beside as many running ones
        if rank < 0:
            return 0
        return min(self.ready, rank + (self.order_of(rank) < order))


def projects_in_turn(session: Session) -> Sequence[str]:
    """Return the projects that have a job to start, in the order in which they take turns."""
    standings = _standing_query(count=False)
    return session.scalars(
        select(standings.c.project_id).order_by(standings.c.running, standings.c.last_turn, standings.c.head)
    ).all()


def project_standings(session: Session) -> list[ProjectStanding]:
    """Return how the projects stand that have a job to start, in no particular order."""
    return [ProjectStanding(*row) for row in session.execute(select(_standing_query(count=True)))]


def standing_of_idle(session: Session, project_id: str) -> ProjectStanding:
    """Return how a project stands that has no job to start: its next one would be the newest of all."""
    running = select(func.count()).where(JobRow.project_id == project_id, JobRow.state == JobState.RUNNING)
    turn = last_turn(TurnKind.JOB, literal(project_id))
    row = session.execute(select(running.scalar_subquery(), turn)).one()
    return ProjectStanding(project_id, row[0], row[1], float("inf"), 0)


def projects_in_line(session: Session) -> Sequence[str]:
    """Return the projects with queued jobs that wait for no other job, in no particular order."""
    waiting = _projects_in_line()
    return session.scalars(select(waiting.c.project_id).where(waiting.c.project_id.is_not(None))).all()


def ready_of_project(session: Session, project_id: str) -> Iterator[ReadyRow]:
    """Yield id, `resources`, priority and seq of a project's jobs that may start now, the first in turn first."""
    query = select(JobRow.id, JobRow.resources, JobRow.priority, JobRow.seq).where(
        JobRow.project_id == project_id, *IN_LINE, RESTED
    )
    query = query.order_by(*IN_TURN).limit(_PAGE)
    page: Sequence[ReadyRow] = session.execute(query).all()
    while page:
        yield from page
        # By position and not by OFFSET: jobs that are claimed meanwhile would shift an offset, and rows would be
        # skipped.
        _, _, priority, seq = page[-1]
        behind = or_(JobRow.priority < priority, and_(JobRow.priority == priority, JobRow.seq > seq))
        page = session.execute(query.where(behind)).all() if len(page) == _PAGE else ()


def first_of_project(session: Session, project_id: str, *, limit: int) -> list[tuple[str, int]]:
    """Return id and priority of a project's first jobs that may start now, in turn."""
    query = select(JobRow.id, JobRow.priority).where(JobRow.project_id == project_id, *IN_LINE, RESTED)
    return [(row.id, row.priority) for row in session.execute(query.order_by(*IN_TURN).limit(limit))]


def _projects_in_line() -> CTE:
    """Return a query of the projects with jobs in line, which steps from one to the next in the index.

    So its cost grows with the number of projects, however many jobs each of them has queued. The last row is null.
    """
    # A skip scan: each step asks the index for the next larger project id. DISTINCT would read every queued job.
    first = select(JobRow.project_id.label("project_id")).where(*IN_LINE).order_by(JobRow.project_id).limit(1)
    waiting = select(first.scalar_subquery().label("project_id")).cte("waiting", recursive=True)
    following = first.where(JobRow.project_id > waiting.c.project_id).scalar_subquery()
    return waiting.union_all(select(following).where(waiting.c.project_id.is_not(None)))


def _standing_query(*, count: bool) -> Subquery:
    """Return a subquery of the columns of `ProjectStanding`; without `count`, `ready` is not counted."""
    waiting = _projects_in_line()
    running = select(JobRow.project_id, func.count().label("count")).where(JobRow.state == JobState.RUNNING)
    running = running.group_by(JobRow.project_id).subquery("running")
    ready = (JobRow.project_id == waiting.c.project_id, *IN_LINE, RESTED)
    # The head decides only between projects of equal standing, so one row each is enough.
    head = select(JobRow.seq).where(*ready).order_by(*IN_TURN).limit(1).scalar_subquery()
    total = select(func.count()).where(*ready).select_from(JobRow).scalar_subquery() if count else literal(0)
    # Materialized, so that a project's head is looked for once and not for each use of it.
    ready_jobs = (
        select(
            waiting.c.project_id,
            func.coalesce(running.c.count, 0).label("running"),
            last_turn(TurnKind.JOB, waiting.c.project_id).label("last_turn"),
            head.label("head"),
            total.label("ready"),
        )
        .outerjoin(running, running.c.project_id == waiting.c.project_id)
        .where(waiting.c.project_id.is_not(None))
        .cte("found")
        .prefix_with("MATERIALIZED")
    )
    return select(ready_jobs).where(ready_jobs.c.head.is_not(None)).subquery("standing")
