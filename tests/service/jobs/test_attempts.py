from __future__ import annotations

from collections.abc import Callable, Generator

import pytest
from sqlalchemy.orm import Session

from service.jobs import lifecycle
from service.jobs.lifecycle import JobFailureReason
from service.kit import metrics
from service.tables.jobs import JobRow
from tests.service.worker.world import World


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Generator[World, None, None]:
    made = World(tmp_path_factory.mktemp("attempts"))
    yield made
    made.close()


def ends() -> dict[str, float]:
    (family,) = metrics.ATTEMPTS.collect()
    return {s.labels["reason"]: s.value for s in family.samples if s.name.endswith("_total") and s.value}


def change(before: dict[str, float]) -> dict[str, float]:
    return {reason: value - before.get(reason, 0) for reason, value in ends().items() if value != before.get(reason, 0)}


def claim(world: World, job_id: str) -> JobRow:
    with world.db.write() as session:
        job = lifecycle.start_job(session, job_id, owner="w", lease_seconds=60)
        assert job is not None
        return job


def fails(code: str, *, budget: int) -> Callable[[Session, JobRow], object]:
    def end(session: Session, job: JobRow) -> None:
        error = JobFailureReason(code, "x")
        lifecycle.retry_or_fail_job(session, job, token=job.lease_token, error=error, max_failures=budget)

    return end


def pauses(session: Session, job: JobRow) -> None:
    lifecycle.pause_job(session, job.id)
    lifecycle.complete_pause(session, job.id, job.lease_token)


ENDS: dict[str, tuple[str, Callable[[Session, JobRow], object]]] = {
    "a worker that is stopped": ("preempted", lambda s, j: lifecycle.requeue_job(s, j.id, j.lease_token, reason="x")),
    "a pause": ("paused", pauses),
    "a cancel": ("cancelled", lambda s, j: lifecycle.cancel_job(s, j.id)),
    "a timeout": ("timeout", lambda s, j: lifecycle.time_out_job(s, j.id, token=j.lease_token)),
    "bad rows": (
        "bad_input",
        lambda s, j: lifecycle.fail_job(s, j.id, JobFailureReason("bad", "x"), token=j.lease_token),
    ),
    "a crash": ("failed", fails("trainer_crashed", budget=3)),
    "the last crash": ("failed", fails("trainer_crashed", budget=1)),
    "a lost worker": ("lease_lost", fails("worker_lost", budget=3)),
    "the last lost worker": ("lease_lost", fails("worker_lost", budget=1)),
    "too little memory": ("out_of_memory", fails("out_of_memory", budget=3)),
    "a full disk": ("storage", fails("disk_full", budget=3)),
}


@pytest.mark.slow
@pytest.mark.parametrize("what", ENDS)
def test_each_end_of_an_attempt_is_counted_once(world: World, what: str) -> None:
    reason, end = ENDS[what]
    job = claim(world, world.job())
    before = ends()
    with world.db.write() as session:
        end(session, job)
        assert change(before) == {}, "not before the commit"
    assert change(before) == {reason: 1}


def test_what_is_rolled_back_did_not_end(world: World) -> None:
    job = claim(world, world.job())
    before = ends()

    def give_back_and_break() -> None:
        with world.db.write() as session:
            lifecycle.requeue_job(session, job.id, job.lease_token, reason="x")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        give_back_and_break()
    assert change(before) == {}


def test_a_job_that_never_ran_has_no_attempt(world: World) -> None:
    before = ends()
    with world.db.write() as session:
        assert lifecycle.cancel_job(session, world.job())
    assert change(before) == {}
