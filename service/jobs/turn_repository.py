"""SQL of the order in which queued jobs start.

Between projects workers take turns: first comes the project with the fewest running jobs, of these the one with the
longest time since its last start, of those that never started one the one with the oldest job in front. Within a
project the highest priority comes first, of these the oldest job.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from sqlalchemy import Row, and_, func, literal, or_, select
from sqlalchemy.orm import Session, aliased

from service.jobs.repository import IN_LINE, IN_TURN, RESTED
from service.jobs.states import JobState
from service.jobs.tables import Job
from service.kit.project_turns import TurnKind, last_turn

_PAGE = 500


class Place(NamedTuple):
    """A queued job's place: `rank` is how many jobs of its project come before it, the rest is its project's."""

    id: str
    project_id: str
    priority: int
    rank: int
    running: int
    last_turn: int
    head: float
    """The number (seq) of the job that its project would start first."""

    @property
    def order(self) -> tuple[int, int, int, float]:
        """Sorts jobs as workers would take them, one after the other, if no running job ended meanwhile.

        When a project's job of rank r starts, r others of its have started before it: it has `running + rank` jobs
        that run. Among projects with the same number, the ones that start a job for the first time come before
        those whose turn has just come, in the order of their last turns.
        """
        return self.running + self.rank, self.rank, self.last_turn, self.head


def projects_in_turn(session: Session) -> Sequence[str]:
    """Return the projects that have a job to start, in the order in which they take turns."""
    standing = _standing()
    return session.scalars(
        select(standing.c.project_id).order_by(standing.c.running, standing.c.last_turn, standing.c.head)
    ).all()


def projects_in_line(session: Session) -> Sequence[str]:
    """Return the projects with queued jobs that wait for no other job, in no particular order."""
    waiting = _projects_in_line()
    return session.scalars(select(waiting.c.project_id).where(waiting.c.project_id.is_not(None))).all()


def ready_of_project(session: Session, project_id: str) -> Iterator[Row[str, dict[str, Any] | None, int, int]]:
    """Yield id, `resources`, priority and seq of a project's jobs that may start now, the first in turn first."""
    query = select(Job.id, Job.resources, Job.priority, Job.seq).where(Job.project_id == project_id, *IN_LINE, RESTED)
    query = query.order_by(*IN_TURN).limit(_PAGE)
    page = session.execute(query).all()
    while page:
        yield from page
        last = page[-1]
        behind = or_(Job.priority < last.priority, and_(Job.priority == last.priority, Job.seq > last.seq))
        page = session.execute(query.where(behind)).all() if len(page) == _PAGE else []


def places(session: Session, *, limit: int) -> list[Place]:
    """Return the first `limit` places of the jobs that may start now, in the order in which workers take them."""
    rank = func.row_number().over(partition_by=Job.project_id, order_by=IN_TURN) - 1
    ranked = select(Job.id, Job.project_id, Job.priority, rank.label("rank")).where(*IN_LINE, RESTED).subquery()
    standing = _standing()
    columns = (standing.c.running, standing.c.last_turn, standing.c.head)
    query = select(ranked, *columns).join(standing, standing.c.project_id == ranked.c.project_id)
    query = query.order_by(standing.c.running + ranked.c.rank, ranked.c.rank, standing.c.last_turn, standing.c.head)
    return [Place(*row) for row in session.execute(query.limit(limit))]


def standing_of(session: Session, project_id: str) -> tuple[int, int]:
    """Return how many jobs of a project run, and the number of its last turn."""
    running = select(func.count()).where(Job.project_id == project_id, Job.state == JobState.RUNNING)
    row = session.execute(select(running.scalar_subquery(), last_turn(TurnKind.JOB, literal(project_id)))).one()
    return row[0], row[1]


def _projects_in_line():
    """Return a query of the projects with jobs in line, which steps from one to the next in the index.

    So its cost grows with the number of projects, however many jobs each of them has queued. The last row is null.
    """
    first = select(Job.project_id.label("project_id")).where(*IN_LINE).order_by(Job.project_id).limit(1)
    waiting = select(first.scalar_subquery().label("project_id")).cte("waiting", recursive=True)
    following = first.where(Job.project_id > waiting.c.project_id).scalar_subquery()
    return waiting.union_all(select(following).where(waiting.c.project_id.is_not(None)))


def _standing():
    """Return a subquery of the projects that have a job to start, with what their order goes by."""
    waiting, front = _projects_in_line(), aliased(Job)
    running = select(Job.project_id, func.count().label("count")).where(Job.state == JobState.RUNNING)
    running = running.group_by(Job.project_id).subquery("running")
    head = select(Job.seq).where(Job.project_id == waiting.c.project_id, *IN_LINE, RESTED).order_by(*IN_TURN).limit(1)
    found = (
        select(
            waiting.c.project_id,
            func.coalesce(running.c.count, 0).label("running"),
            last_turn(TurnKind.JOB, waiting.c.project_id).label("last_turn"),
            head.scalar_subquery().label("head"),
        )
        .outerjoin(running, running.c.project_id == waiting.c.project_id)
        .where(waiting.c.project_id.is_not(None))
        .subquery("found")
    )
    return select(found).where(found.c.head.is_not(None)).subquery("standing")
