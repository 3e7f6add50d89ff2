"""SQL of jobs. Only `move_job` and `claim_job` change a state; writes of a worker carry its lease token."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Row, case, delete, exists, func, or_, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session, aliased

from service.jobs.states import TERMINAL, sources_of
from service.kit import ids
from service.kit.db import db_now
from service.kit.pagination import Order, Scope, fetch_page
from service.limits import repository as limits
from service.tables.jobs import IN_LINE, JobEventRow, JobMetadataRow, JobRow, JobState

_BARE = {"": ""}
"""How `JobMetadataRow` has a job without metadata."""

RESTED = or_(JobRow.retry_at.is_(None), JobRow.retry_at <= db_now())
"""A job that pauses after no failure, or no longer."""
_READY = (*IN_LINE, RESTED)
IN_TURN = (JobRow.priority.desc(), JobRow.seq)
"""The order of the jobs of one project; `turn_repository` has the order of all."""


def get_project_job(session: Session, project_id: str, job_id: str) -> JobRow | None:
    """Return a project's job."""
    return session.scalar(select(JobRow).where(JobRow.id == job_id, JobRow.project_id == project_id))


def by_id(session: Session, job_id: str) -> JobRow | None:
    """Return a job whoever owns it: for the controller and the workers."""
    return session.scalar(select(JobRow).where(JobRow.id == job_id))


def find_job_by_model_name(session: Session, project_id: str, name: str) -> JobRow | None:
    """Return the project's job that makes, or has made, the model of that name."""
    query = select(JobRow).where(JobRow.project_id == project_id, JobRow.model_name == name)
    return session.scalar(query.order_by(JobRow.seq).limit(1))


def add_metadata(session: Session, job: JobRow) -> None:
    """Make a new job's metadata searchable."""
    for key, value in (job.user_metadata or _BARE).items():
        session.add(JobMetadataRow(project_id=job.project_id, key=key, value=value, job_seq=job.seq))
    session.flush()


def fetch_job_page(
    session: Session,
    project_id: str,
    *,
    metadata: Mapping[str, str] | None,
    after: str | None,
    limit: int,
) -> tuple[Sequence[JobRow], bool]:
    """Return one page of a project's jobs, newest first.

    Those with all the given metadata pairs (all jobs, for an empty mapping), or those without any, for None.
    """
    metadata_pairs = _BARE if metadata is None else metadata
    query = select(JobRow)
    if not metadata_pairs:
        scope: Scope = [(JobRow.project_id, project_id)]
        return fetch_page(
            session, query, scope=scope, seq=JobRow.seq, public_id=JobRow.id, after=after, limit=limit, order="desc"
        )
    # The first pair's index leads: its order is the page's. Further pairs are looked up job by job.
    (first, *other_pairs) = metadata_pairs.items()
    query = query.join(JobMetadataRow, JobMetadataRow.job_seq == JobRow.seq)
    for key, value in other_pairs:
        pair = aliased(JobMetadataRow)
        matches_pair = (pair.project_id == project_id, pair.key == key, pair.value == value)
        query = query.where(exists().where(pair.job_seq == JobMetadataRow.job_seq, *matches_pair))
    columns = (JobMetadataRow.project_id, JobMetadataRow.key, JobMetadataRow.value)
    scope = list(zip(columns, (project_id, *first), strict=True))
    seq = JobMetadataRow.job_seq
    return fetch_page(session, query, scope=scope, seq=seq, public_id=JobRow.id, after=after, limit=limit, order="desc")


def in_state(session: Session, state: JobState, *, limit: int = 1000) -> Sequence[JobRow]:
    """Return jobs in a state, oldest first."""
    return session.scalars(select(JobRow).where(JobRow.state == state).order_by(JobRow.seq).limit(limit)).all()


def ready_jobs(session: Session, *, limit: int = 1000) -> Sequence[JobRow]:
    """Return queued jobs that wait for nothing but a worker, oldest first."""
    return session.scalars(select(JobRow).where(*_READY).order_by(JobRow.seq).limit(limit)).all()


def ready_of(session: Session, project_id: str, *, limit: int = 1000) -> Sequence[JobRow]:
    """Return jobs of a project that wait for nothing but a worker, the first in turn first."""
    query = select(JobRow).where(JobRow.project_id == project_id, *_READY)
    return session.scalars(query.order_by(*IN_TURN).limit(limit)).all()


def training_speeds(
    session: Session, base: str, *, limit: int
) -> Sequence[Row[dict[str, Any], int | None, float | None, float]]:
    """Return method, tokens, seconds of training and seconds of running of the last jobs on a base that succeeded."""
    query = select(JobRow.method, JobRow.trained_tokens, JobRow.train_seconds, JobRow.running_seconds).where(
        JobRow.state == JobState.SUCCEEDED, JobRow.base == base, JobRow.train_seconds > 0, JobRow.trained_tokens > 0
    )
    return session.execute(query.order_by(JobRow.seq.desc()).limit(limit)).all()


def count_ready(session: Session, project_id: str) -> int:
    """Return how many jobs of a project wait for a worker alone."""
    query = select(func.count()).select_from(JobRow).where(JobRow.project_id == project_id, *_READY)
    return session.scalar(query) or 0


def fetch_held_jobs(session: Session) -> Sequence[JobRow]:
    """Return queued jobs that a limit of their project keeps from starting, the first in turn first."""
    query = select(JobRow).where(JobRow.state == JobState.QUEUED, JobRow.held_by.is_not(None))
    return session.scalars(query.order_by(*IN_TURN)).all()


def set_hold(session: Session, job_id: str, reason: str | None) -> None:
    """Write for what a queued job is held, None for nothing."""
    session.execute(update(JobRow).where(JobRow.id == job_id, JobRow.state == JobState.QUEUED).values(held_by=reason))


def waiting_jobs(session: Session) -> Sequence[JobRow]:
    """Return queued jobs that wait for others, oldest first."""
    query = select(JobRow).where(JobRow.state == JobState.QUEUED, JobRow.waits_for.is_not(None))
    return session.scalars(query.order_by(JobRow.seq)).all()


def lock_job(session: Session, job_id: str) -> JobRow | None:
    """Return a job as it is now, and keep others from changing it until the transaction ends."""
    query = select(JobRow).where(JobRow.id == job_id).with_for_update()
    # Without `populate_existing` the session would return the row as it was first read, from before the lock.
    return session.scalar(query.execution_options(populate_existing=True))


def users_of(session: Session, job: JobRow) -> Sequence[Row[str, str]]:
    """Return id and project of jobs that need this one: unfinished ones that start from it, and adapters on its whole
    model; its own project's first.
    """
    unfinished_users = JobRow.state.not_in(TERMINAL) & or_(JobRow.start_job == job.id, JobRow.reward_job == job.id)
    on_it = JobRow.base == job.fine_tuned_model
    needs = or_(unfinished_users, on_it) if job.fine_tuned_model else unfinished_users
    query = select(JobRow.id, JobRow.project_id).where(JobRow.id != job.id, needs)
    return session.execute(query.order_by(JobRow.project_id != job.project_id, JobRow.seq).limit(6)).all()


def delete_job_row(session: Session, job: JobRow) -> None:
    """Delete a job's row, and with it its events, checkpoints and artifacts."""
    session.execute(delete(JobRow).where(JobRow.seq == job.seq))


def states_of_jobs(session: Session, job_ids: Sequence[str]) -> dict[str, str]:
    """Return where each of these jobs stands."""
    rows = session.execute(select(JobRow.id, JobRow.state).where(JobRow.id.in_(job_ids)))
    return {row.id: row.state for row in rows}


def wait_for(session: Session, job_id: str, job_ids: Sequence[str]) -> bool:
    """Write what a queued job still waits for. False if it is not queued any more."""
    result = session.execute(
        update(JobRow)
        # The state is part of the update, because the list of parents was read in an earlier transaction.
        .where(JobRow.id == job_id, JobRow.state == JobState.QUEUED)
        .values(waits_for=" ".join(job_ids) or None)
        .returning(JobRow.id)
    )
    return result.first() is not None


def move_job(session: Session, job_id: str, target: JobState, *, token: int | None = None, **values: Any) -> bool:
    """Move a job to `target` if the state machine allows it. Return False, and change nothing, if it does not.

    With `token`, only the holder of that lease succeeds. A pause after a failure is over, unless `values` begin one;
    an end leaves no pause to come.
    """
    # Read before the update, which clears the lease that says until when the attempt ran.
    ran_until = _ran_until(session, job_id)
    # One conditional UPDATE is the state machine's guard: of two transactions that race, the second finds the state
    # changed.
    query = update(JobRow).where(JobRow.id == job_id, JobRow.state.in_(sources_of(target)))
    if token is not None:  # after a release no attempt owns it, until the next claim raises it
        query = query.where(JobRow.lease_token == token, JobRow.state == JobState.RUNNING)
    new_values: dict[str, Any] = {"state": target, "running_seconds": seconds_run(), "held_by": None, "retry_at": None}
    if target in TERMINAL:
        new_values["pause_requested"] = False
    result = session.execute(query.values(**new_values | _queue_time_values(target) | values).returning(JobRow.id))
    was_moved = result.first() is not None
    # The span feeds the project's quota of training time; it must end in the same transaction as the attempt.
    if was_moved and ran_until is not None:
        limits.end_span(session, job_id, at=ran_until)
    return was_moved


def _queue_time_values(target: JobState) -> dict[str, Any]:
    """Return since when a job that is queued now waits."""
    return {"queued_at": db_now()} if target == JobState.QUEUED else {}


def _ran_until(session: Session, job_id: str) -> float | None:
    """Return until when an attempt that runs has run: a worker that stopped responding, until its lease was over."""
    # A worker that stopped responding may have done nothing since: the project pays until the end of the lease and no
    # longer.
    lease_is_over = JobRow.lease_expires_at < db_now()
    query = select(case((lease_is_over, JobRow.lease_expires_at), else_=db_now()))
    return session.scalar(query.where(JobRow.id == job_id, JobRow.state == JobState.RUNNING).with_for_update())


def seconds_run() -> ColumnElement[float]:
    """How long a job has run, all attempts together. A worker that stopped responding ran until its lease expired."""
    end = case((JobRow.lease_expires_at < db_now(), JobRow.lease_expires_at), else_=db_now())
    running = (JobRow.state == JobState.RUNNING) & JobRow.started_at.is_not(None)
    return case((running, JobRow.running_seconds + (end - JobRow.started_at)), else_=JobRow.running_seconds)


def out_of_time(session: Session, *, grace: float) -> Sequence[JobRow]:
    """Return running jobs that are over their timeout by more than `grace` seconds."""
    query = select(JobRow).where(JobRow.state == JobState.RUNNING, JobRow.timeout_seconds.is_not(None))
    return session.scalars(query.where(seconds_run() > JobRow.timeout_seconds + grace).order_by(JobRow.seq)).all()


def is_out_of_time(session: Session, job_id: str) -> bool:
    """Return whether a job has used up its timeout."""
    return bool(session.scalar(select(exists().where(JobRow.id == job_id, seconds_run() >= JobRow.timeout_seconds))))


def claim_job(session: Session, job_id: str, *, owner: str, lease_seconds: float) -> JobRow | None:
    """Take a queued job: raise its token and start a lease, by the database's clock. None if it is not queued.

    A job that waits for another, or pauses after a failure, cannot be taken.
    """
    result = session.execute(
        update(JobRow)
        .where(JobRow.id == job_id, JobRow.state.in_(sources_of(JobState.RUNNING)), JobRow.waits_for.is_(None), RESTED)
        .values(
            state=JobState.RUNNING,
            held_by=None,
            retry_at=None,
            # The token is the fence: from this commit on every write of an earlier attempt fails.
            lease_token=JobRow.lease_token + 1,
            lease_owner=owner,
            lease_expires_at=db_now() + lease_seconds,
            started_at=db_now(),
        )
        .returning(JobRow.id)
    )
    if result.first() is None:
        return None
    job = session.scalar(select(JobRow).where(JobRow.id == job_id).execution_options(populate_existing=True))
    if job is not None:
        limits.begin_span(session, job.project_id, job_id)
    return job


def renew_lease(session: Session, job_id: str, token: int, *, lease_seconds: float, **values: Any) -> bool:
    """Prolong a lease, writing further columns with it. False if the token is stale or the job has ended."""
    result = session.execute(
        update(JobRow)
        # An expired lease that nobody has taken may still be renewed: the token is unchanged, so no second attempt
        # runs.
        .where(JobRow.id == job_id, JobRow.state == JobState.RUNNING, JobRow.lease_token == token)
        .values(lease_expires_at=db_now() + lease_seconds, **values)
        .returning(JobRow.id)
    )
    return result.first() is not None


def pause_wanted(session: Session, job_id: str, token: int) -> bool | None:
    """Return whether the job is to be paused; None if it has ended or the token is stale."""
    query = select(JobRow.pause_requested).where(
        JobRow.id == job_id, JobRow.state == JobState.RUNNING, JobRow.lease_token == token
    )
    return session.scalar(query)


def with_expired_lease(session: Session) -> Sequence[JobRow]:
    """Return running jobs with a worker that has not reported in time."""
    return session.scalars(
        select(JobRow).where(JobRow.state == JobState.RUNNING, JobRow.lease_expires_at < db_now()).order_by(JobRow.seq)
    ).all()


def add_event(
    session: Session,
    job_id: str,
    message: str,
    *,
    level: str = "info",
    kind: str = "message",
    data: Mapping[str, Any] | None = None,
    once_key: str | None = None,
) -> None:
    """Append an event; one with a `once_key` that the job already has changes nothing."""
    insert = postgresql.insert if session.get_bind().dialect.name == "postgresql" else sqlite.insert
    session.execute(
        insert(JobEventRow)
        .values(
            id=ids.new_id(ids.EVENT),
            job_id=job_id,
            created_at=db_now(),
            level=level,
            type=kind,
            message=message,
            data=None if data is None else dict(data),
            once_key=once_key,
        )
        # A later attempt repeats the steps since its checkpoint, and reports them under the same keys.
        .on_conflict_do_nothing(index_elements=["job_id", "once_key"])
    )


def event_page(
    session: Session, job_id: str, *, after: str | None, limit: int, order: Order
) -> tuple[Sequence[JobEventRow], bool]:
    """Return one page of a job's events."""
    scope: Scope = [(JobEventRow.job_id, job_id)]
    seq, public_id = JobEventRow.seq, JobEventRow.id
    return fetch_page(
        session, select(JobEventRow), scope=scope, seq=seq, public_id=public_id, after=after, limit=limit, order=order
    )


def events_since(session: Session, job_id: str, seq: int, *, limit: int = 500) -> Sequence[JobEventRow]:
    """Return a job's events after a position, oldest first."""
    query = select(JobEventRow).where(JobEventRow.job_id == job_id, JobEventRow.seq > seq).order_by(JobEventRow.seq)
    return session.scalars(query.limit(limit)).all()


def event_position(session: Session, job_id: str, event_id: str) -> int | None:
    """Return where an event stands in its job's order."""
    return session.scalar(select(JobEventRow.seq).where(JobEventRow.job_id == job_id, JobEventRow.id == event_id))
