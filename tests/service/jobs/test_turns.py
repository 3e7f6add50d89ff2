"""Projects take turns at workers: whatever one queues, and with what priority, another's job is next."""

from __future__ import annotations

import threading
from collections import Counter
from typing import Any

import pytest
from sqlalchemy import event, func, select, update

from service.jobs import turn_repository
from service.jobs.queueing import QueueSnapshot
from service.limits import service as limits
from service.limits.schemas import LimitsUpdate
from service.tables.jobs import JobRow, JobState
from service.workers.capacity import Capacity
from tests.fixtures.turns import PROJECTS, TurnsWorld, queue

__all__ = ["queue"]


def test_priority_orders_the_jobs_of_a_project_and_none_of_anothers(queue: TurnsWorld) -> None:
    low, high = queue.add("proj_a", priority=-100), queue.add("proj_a", 8, priority=100)
    other = queue.add("proj_b", priority=-100)
    assert queue.start_all() == [high[0], *other, *high[1:], *low]


def test_the_project_with_the_fewest_jobs_is_next_then_the_longest_waiting(queue: TurnsWorld) -> None:
    queue.add("proj_a", 4)
    queue.add("proj_b", 2)
    first = [queue.start() for _ in range(3)]
    assert [job and job.project_id for job in first] == ["proj_a", "proj_b", "proj_a"]
    late = queue.add("proj_c", 2)  # it has run nothing yet: it comes before both, twice before proj_a
    fourth, fifth, sixth = queue.start(), queue.start(), queue.start()
    assert fourth
    assert fifth
    assert sixth
    assert [fourth.id, fifth.project_id, sixth.id] == [late[0], "proj_b", late[1]]
    for job in (fourth, fifth, sixth, *first):
        assert job
        queue.end(job)
    queue.add("proj_b")
    queue.add("proj_c")
    order = [queue.start() for _ in range(3)]  # nothing runs: by the last turns, of which proj_a's is longest ago
    assert [job and job.project_id for job in order] == ["proj_a", "proj_b", "proj_c"]


def test_a_flood_delays_another_by_one_turn_with_a_single_worker(queue: TurnsWorld) -> None:
    queue.add("proj_a", 30, priority=100)
    for _ in range(3):
        queue.add("proj_客服", priority=-100)
        served: list[str] = []
        while "proj_客服" not in served:
            job = queue.start()
            assert job
            served.append(job.project_id)
            queue.end(job)
        assert len(served) <= 2


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_jobs_start_in_the_order_of_their_shown_positions(queue: TurnsWorld, seed: int) -> None:
    counts = [(seed * 7 + number * 5) % 6 + 1 for number in range(len(PROJECTS))]
    for number, project in enumerate(PROJECTS):
        for position in range(counts[number]):
            queue.add(project, priority=(seed + 3 * position) % 4)
    for _ in range(seed * 2):
        assert queue.start()
    queue.add("proj_b", waits_for="ftjob-0")
    queue.add("proj_b", held_by="running_jobs")
    queue.add("proj_c", retry_at=4e9)
    assert queue.positions() == queue.start_all()


def test_a_job_that_is_not_queued_yet_shows_its_future_place(queue: TurnsWorld) -> None:
    queue.add("proj_a", 5)
    queue.add("proj_b", 2, priority=10)
    assert queue.start()
    for project in PROJECTS:
        for priority in (-5, 0, 10):
            with queue.db.read() as session:
                draft = JobRow(id="?", project_id=project, priority=priority, resources=None)
                told = QueueSnapshot.read_snapshot(session, queue.settings, project).explain_new(draft).position
            (made,) = queue.add(project, priority=priority)
            assert told == queue.positions().index(made) + 1
            with queue.db.write() as session:
                session.execute(update(JobRow).where(JobRow.id == made).values(state=JobState.CANCELLED))


def test_claims_at_the_same_moment_take_turns_too(queue: TurnsWorld) -> None:
    queue.add("proj_a", 12, priority=100)
    queue.add("proj_b", 4)
    queue.add("proj_c", 4)
    taken: list[JobRow | None] = []
    barrier = threading.Barrier(12)

    def claim() -> None:
        barrier.wait()
        taken.append(queue.start())

    threads = [threading.Thread(target=claim) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert Counter(job.project_id for job in taken if job) == {"proj_a": 4, "proj_b": 4, "proj_c": 4}
    assert len({job.id for job in taken if job}) == 12


def test_a_project_at_its_limit_is_passed_over_after_one_look(queue: TurnsWorld) -> None:
    queue.add("proj_a", 50)
    other = queue.add("proj_b")
    with queue.db.write() as session:
        limits.change_limits(session, "proj_a", LimitsUpdate(running_jobs=0))
    job = queue.start()
    assert job
    assert job.id == other[0]
    with queue.db.read() as session:
        held = session.scalar(select(func.count()).where(JobRow.held_by == "running_jobs"))
    assert held == 1


def test_jobs_that_fit_no_worker_of_this_kind_do_not_hold_up_the_project_or_others(queue: TurnsWorld) -> None:
    gpu = {"gpus": 1, "gpu_memory_gb": None, "labels": []}
    queue.add("proj_a", 250, resources=gpu, priority=100)
    (fit,) = queue.add("proj_a", priority=-1)
    (other,) = queue.add("proj_b")
    assert queue.start_all() == [fit, other]
    job = queue.start(capacity=Capacity(gpus=1))
    assert job
    assert job.project_id == "proj_a"


def test_a_claim_reads_the_index_however_many_jobs_are_queued(queue: TurnsWorld) -> None:
    for project in PROJECTS:
        queue.add(project, 2500, priority=1)
    queue.add("proj_a", 2500, waits_for="ftjob-0")
    statements: list[tuple[str, Any]] = []

    def note(_connection: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        statements.append((statement, parameters))

    with queue.db.write() as session:
        if queue.db.engine.dialect.name == "postgresql":
            session.connection().exec_driver_sql("ANALYZE")
    event.listen(queue.db.engine, "before_cursor_execute", note)
    with queue.db.read() as session:
        turn_repository.projects_in_turn(session)
        next(turn_repository.ready_of_project(session, "proj_b"))
    event.remove(queue.db.engine, "before_cursor_execute", note)
    looked = [pair for pair in statements if "FROM jobs" in pair[0]]
    assert len(looked) == 2
    with queue.db.read() as session:
        explain = "EXPLAIN" if queue.db.engine.dialect.name == "postgresql" else "EXPLAIN QUERY PLAN"
        for statement, parameters in looked:
            plan = [str(row[-1]) for row in session.connection().exec_driver_sql(f"{explain} {statement}", parameters)]
            told = "\n".join(plan)
            assert "ix_jobs_in_line" in told, told
            assert "SCAN jobs" not in told, told
            assert "Seq Scan on jobs" not in told, told
