"""What the worker asks of SQL, on a real PostgreSQL that can also be away."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from pydantic import BaseModel
from sqlalchemy import select, update

from service.controller.exports import end_expired_leases, remove_superfluous
from service.controller.leases import end_expired_leases as end_expired_leases_of_jobs
from service.controller.retention import Retention
from service.exports import lifecycle as exports
from service.jobs import claims, lifecycle, repository, turn_repository
from service.keys.idempotency import Idempotency
from service.kit import db
from service.kit.db import Base, db_now
from service.kit.errors import Unavailable
from service.previews import repository as previews
from service.queue.memory import MemoryJobQueue
from service.tables.exports import ModelExportRow
from service.tables.jobs import JobArtifactRow, JobCheckpointRow, JobRow, JobState
from service.tables.previews import PreviewRow
from service.worker.messages import without_nul
from service.workers.capacity import Capacity
from tests.fixtures.postgres import PostgresServer, run_postgres
from tests.service.worker.test_exports import ask, exporter, row
from tests.service.worker.world import PROJECT, World, eventually

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def postgres() -> Iterator[PostgresServer]:
    with run_postgres() as server:
        yield server


def make_world(folder: Path, postgres: PostgresServer, **options: object) -> World:
    return World(folder, database_url=postgres.url, secret_key="k" * 32, **options)


@pytest.fixture
def world(tmp_path: Path, postgres: PostgresServer) -> Iterator[World]:
    made = make_world(tmp_path, postgres)
    yield made
    Base.metadata.drop_all(made.db.engine)
    made.close()


def test_of_several_claims_at_once_one_succeeds(world: World) -> None:
    job_id = world.job()
    tokens: list[int | None] = []
    barrier = threading.Barrier(6)

    def claim(number: int) -> None:
        barrier.wait()
        with world.db.write() as session:
            job = lifecycle.start_job(session, job_id, owner=f"worker-{number}", lease_seconds=60)
            tokens.append(None if job is None else job.lease_token)

    threads = [threading.Thread(target=claim, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(tokens, key=str) == [1, *[None] * 5]


def test_several_workers_that_ask_at_once_share_the_queue_in_its_order(world: World) -> None:
    jobs = [world.job(priority=priority) for priority in (0, 5, -5, 5)]
    taken: list[str | None] = []
    barrier = threading.Barrier(6)

    def ask(number: int) -> None:
        barrier.wait()
        with world.db.write() as session:
            job = claims.start_next(session, capacity=Capacity(), owner=f"worker-{number}", lease_seconds=60)
            taken.append(job and job.id)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(taken, key=str) == sorted([*jobs, None, None], key=str)
    with world.db.write() as session:
        for job_id in jobs:
            lifecycle.requeue_job(session, job_id, 1, reason="a test")
    with world.db.read() as session:
        assert [row.id for row in turn_repository.ready_of_project(session, PROJECT)] == [
            jobs[1],
            jobs[3],
            jobs[0],
            jobs[2],
        ]


def test_time_is_added_up_by_the_databases_clock(world: World) -> None:
    job_id = world.job(timeout_seconds=100)
    with world.db.write() as session:
        job = lifecycle.start_job(session, job_id, owner="w", lease_seconds=60)
        assert job is not None
        session.execute(update(JobRow).where(JobRow.id == job_id).values(started_at=db_now() - 70))
    with world.db.write() as session:
        assert not repository.is_out_of_time(session, job_id)
        assert repository.out_of_time(session, grace=-40)
        lifecycle.requeue_job(session, job_id, 1, reason="a test")
    assert 70 <= world.row(job_id).running_seconds < 100
    with world.db.read() as session:
        assert not repository.out_of_time(session, grace=-100)  # it runs no more


def test_a_preview_is_counted_by_one_worker_and_keeps_every_text(world: World) -> None:
    with world.db.write() as session:
        session.add(PreviewRow(id="ftpreview-1", project_id=PROJECT, job={"词": None}, rows_shown=3))
    with world.db.write() as session:
        assert previews.preview_waits(session, within=60)
        taken = previews.claim_preview(session, worker_id="w.1", within=60)
        assert taken is not None
        assert previews.claim_preview(session, worker_id="w.2", within=60) is None
        assert not previews.preview_waits(session, within=60)
        previews.set_note(session, taken.id, "忙")
        previews.finish_preview(session, taken.id, {"text": "汉␀"})
        previews.finish_preview(session, "ftpreview-2", {})
    with world.db.write() as session:
        kept = previews.by_id(session, "ftpreview-1")
        assert kept is not None
        assert (kept.result, kept.note, kept.taken_by) == ({"text": "汉␀"}, "忙", "w.1")
        assert previews.forget_old(session, age=-1) == 1


def test_only_the_newest_token_moves_a_job(world: World) -> None:
    job_id = world.job()
    with world.db.write() as session:
        assert repository.claim_job(session, job_id, owner="worker-1", lease_seconds=60)
    with world.db.write() as session:
        assert not repository.renew_lease(session, job_id, 0, lease_seconds=60)
        assert not repository.move_job(session, job_id, JobState.SUCCEEDED, token=2)
        assert repository.renew_lease(session, job_id, 1, lease_seconds=60)
        assert repository.move_job(session, job_id, JobState.QUEUED, token=1, lease_expires_at=None)
        assert repository.pause_wanted(session, job_id, 1) is None


def test_an_event_with_a_key_is_written_once(world: World) -> None:
    job_id = world.job()
    for _ in range(2):
        with world.db.write() as session:
            repository.add_event(session, job_id, "第一步", data={"损失": 1.5}, once_key="step:1")
            repository.add_event(session, job_id, without_nul("a\0b"))
    messages = world.messages(job_id)
    assert messages.count("第一步") == 1
    assert messages.count("a\N{REPLACEMENT CHARACTER}b") == 2


def test_a_whole_job_runs(world: World) -> None:
    job_id = world.job()
    world.run(job_id)
    assert world.row(job_id).state == JobState.SUCCEEDED
    assert "Step 4/4: training loss=1.23" in world.messages(job_id)


@pytest.mark.faults
def test_a_short_absence_of_the_database_does_not_restart_the_training(world: World, postgres: PostgresServer) -> None:
    job_id = world.job()

    def restart() -> None:
        postgres.stop()
        world.stop.set()
        postgres.start()

    watcher = world.meanwhile(lambda: world.has_step(job_id, 2), restart)
    world.run(job_id, "wait")
    watcher.join()
    job = world.row(job_id)
    assert (job.state, job.lease_token, job.preemptions, job.failures) == (JobState.QUEUED, 1, 1, 0)
    assert "Checkpoint created at step 3" in world.messages(job_id)


@pytest.mark.faults
def test_a_database_that_stays_away_ends_the_attempt_and_nothing_is_written(
    tmp_path: Path, postgres: PostgresServer
) -> None:
    world = make_world(tmp_path, postgres, lease_seconds=3)
    job_id = world.job()
    watcher = world.meanwhile(lambda: world.has_step(job_id, 2), postgres.stop)
    world.run(job_id, "wait")
    watcher.join()
    assert list(world.settings.work.iterdir()) == []
    postgres.start()
    job = world.row(job_id)
    assert (job.state, job.failures) == (JobState.RUNNING, 0)
    assert not world.messages(job_id)[-1].startswith("Checkpoint created at step 3")
    Base.metadata.drop_all(world.db.engine)
    world.close()


def test_of_several_equal_creations_at_once_one_is_carried_out(world: World) -> None:
    made: list[int] = []
    answers: list[int] = []
    barrier = threading.Barrier(6)

    class Answer(BaseModel):
        number: int

    def create(number: int) -> Answer:
        made.append(number)
        time.sleep(0.05)
        return Answer(number=number)

    def ask(number: int) -> None:
        barrier.wait()
        with world.db.write() as session:
            once = Idempotency(PROJECT, "key", "/v1/x", b"secret", lambda _: None).run_once
            answers.append(once(session, {"a": 1}, Answer, lambda: create(number)).number)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 1
    assert answers == made * 6


def test_simultaneous_export_requests_make_one_export_that_is_collected(world: World) -> None:
    job_id = world.job()
    world.run(job_id, "checkpoint")
    barrier = threading.Barrier(4)

    def together(act: Callable[[], object]) -> None:
        def wait_and_act() -> None:
            barrier.wait()
            act()

        threads = [threading.Thread(target=wait_and_act) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    together(lambda: ask(world, job_id, "gguf"))
    with world.db.read() as session:
        (export_id,) = session.scalars(select(ModelExportRow.id)).all()
    together(exporter(world).make_next)
    found = row(world, export_id)
    assert (found.status, found.lease_token) == ("ready", 1)
    queue = MemoryJobQueue()
    assert remove_superfluous(world.context, queue) == 0
    assert end_expired_leases(world.context, queue) == 0
    with world.db.write() as session:
        session.execute(update(JobCheckpointRow).values(expires_at=db_now() - 1))
        session.execute(update(JobArtifactRow).values(expires_at=db_now() - 1))
        session.execute(update(JobRow).values(keep_checkpoints=1))
    assert Retention()(world.context, queue) == 2
    assert remove_superfluous(world.context, queue) == 1
    assert world.artifacts(job_id) == {}


def test_an_export_of_a_dead_worker_is_made_by_another(world: World) -> None:
    job_id = world.job()
    world.run(job_id)
    export_id = ask(world, job_id, "gguf")
    with world.db.write() as session:
        assert exports.start_export(session, owner="dead", lease_seconds=-1) is not None
    assert end_expired_leases(world.context, MemoryJobQueue()) == 1
    exporter(world).make_next()
    found = row(world, export_id)
    assert (found.status, found.lease_token, found.failures) == ("ready", 2, 1)


@pytest.mark.faults
def test_a_worker_that_freezes_in_a_transaction_does_not_keep_its_job(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(db, "IDLE_SECONDS", 1)
    job_id = world.job()
    other = db.Database(world.settings.database)
    with other.write() as session:
        assert repository.claim_job(session, job_id, owner="silent", lease_seconds=-1)
    with ExitStack() as stack:
        silent = stack.enter_context(other.write())
        repository.lock_job(silent, job_id)
        assert end_expired_leases_of_jobs(world.context, MemoryJobQueue()) == 0  # it waits for nobody
        eventually(lambda: end_expired_leases_of_jobs(world.context, MemoryJobQueue()) == 1)
        with pytest.raises(Unavailable):
            stack.close()
    other.close()
    assert world.row(job_id).state == JobState.QUEUED
