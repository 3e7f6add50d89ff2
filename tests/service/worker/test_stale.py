"""A worker that was taken for dead comes back: whatever it writes is refused, on every path, on both databases."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, update

from service.exports import lifecycle as exports
from service.jobs import lifecycle, repository
from service.jobs.errors import StaleLease
from service.jobs.lifecycle import JobFailureReason, PublishedFile
from service.jobs.states import TERMINAL
from service.kit.db import Base
from service.kit.outbox import OutboxRow, Topic
from service.staging.errors import LeaseLost
from service.tables.exports import ModelExportRow
from service.tables.files import FileRow
from service.tables.jobs import JobArtifactRow, JobCheckpointRow, JobEventRow, JobRow, JobState
from service.tables.models import FineTunedModelRow
from service.worker.checkpoints import CheckpointUploads
from service.worker.lease import Lease
from service.worker.publish import publish_result
from service.worker.relay import EventRelay
from tests.fixtures.databases import BOTH
from tests.fixtures.postgres import PostgresServer, run_postgres
from tests.service.worker.scripted_trainer import Script
from tests.service.worker.test_exports import ask
from tests.service.worker.world import World
from trainer.contract import events
from trainer.contract.job import JobSpec
from trainer.contract.result import OUTPUT_FOLDER

ERROR = JobFailureReason("c", "坏了")
FILE = PublishedFile("report.json", "report.json", "application/json", "jobs/x/report.json", 2, "0" * 64)


@pytest.fixture(scope="module")
def servers() -> Iterator[dict[str, PostgresServer]]:
    """Started where a test asks for one."""
    started: dict[str, PostgresServer] = {}
    running: list[Any] = []

    class Lazy(dict[str, PostgresServer]):
        def __missing__(self, name: str) -> PostgresServer:
            manager = run_postgres()
            running.append(manager)
            started[name] = self[name] = manager.__enter__()
            return started[name]

    yield Lazy()
    for manager in running:
        manager.__exit__(None, None, None)


@pytest.fixture(params=BOTH)
def world(request: pytest.FixtureRequest, tmp_path: Path, servers: dict[str, PostgresServer]) -> Iterator[World]:
    postgres = request.param == "postgresql"
    options = {"database_url": servers["one"].url, "secret_key": "k" * 32} if postgres else {}
    made = World(tmp_path, **options)
    yield made
    if postgres:
        Base.metadata.drop_all(made.db.engine)
    made.close()


def claim(world: World, job_id: str) -> JobRow:
    with world.db.write() as session:
        job = lifecycle.start_job(session, job_id, owner="w", lease_seconds=60)
        assert job is not None
        return job


def succeed(session: Any, job: JobRow, token: int) -> str:
    return lifecycle.complete_job(
        session,
        job,
        token=token,
        trained_tokens=5,
        kind="adapter",
        manifest_sha256="0" * 64,
        blob_prefix="jobs/x",
        result_csv=FILE,
        artifacts=[FILE],
    )


class Frozen:
    """The first attempt's worker, which was frozen while the second attempt began."""

    def __init__(self, world: World, folder: Path) -> None:
        self.world, self.folder = world, folder
        self.job_id = world.job()
        self.job = claim(world, self.job_id)
        self.lease = Lease(
            world.db, world.settings, job_id=self.job_id, token=1, stop=world.stop, since=float("inf"), time_left=None
        )
        self._lay_out()
        with world.db.write() as session:
            lifecycle.retry_or_fail_job(session, self.job, token=1, error=ERROR, max_failures=3, crash=True)
        assert claim(world, self.job_id).lease_token == 2

    def _lay_out(self) -> None:
        """Leave what the trainer left: events, a checkpoint, a result."""
        (self.folder / "data").mkdir(parents=True)
        (self.folder / "data" / "train.jsonl").write_text("{}")
        (self.folder / "base").mkdir()
        (self.folder / "base" / "config.json").write_text("{}")
        spec = JobSpec.model_validate(
            {
                "job_id": self.job_id,
                "model_name": "ft:tiny",
                "base": {"id": "tiny", "fingerprint": "f" * 64},
                "method": self.job.method,
                "training": {"path": "data/train.jsonl", "filename": "训练.jsonl", "sha256": "0" * 64},
                "seed": 1,
            }
        )
        (self.folder / "job.json").write_text(spec.model_dump_json())
        assert Script("one_checkpoint", self.folder).run() == 0

    def tell(self) -> None:
        self.lease.report_progress("too late", "late")

    def relay(self) -> None:
        relay = EventRelay(self.world.storage, self.lease, folder=self.folder, poll_seconds=0.01)
        relay.start()
        relay.drain(in_haste=False)

    def checkpoint(self) -> None:
        uploads = CheckpointUploads(self.world.storage, self.lease, folder=self.folder)
        uploads.add_checkpoint(events.CheckpointEvent(step=2, path="checkpoints/step-2", metrics={"train_loss": 1.0}))
        uploads.finish()

    def publish(self) -> None:
        publish_result(self.world.context, self.job, self.lease, folder=self.folder)

    def change(self, action: Callable[[Any], object]) -> None:
        with self.world.db.write() as session:
            action(session)


JOB_PATHS: dict[str, Callable[[Frozen], object]] = {
    "an event of the worker": Frozen.tell,
    "events of the trainer": Frozen.relay,
    "a checkpoint": Frozen.checkpoint,
    "artifacts": Frozen.publish,
    "a success": lambda f: f.change(lambda s: succeed(s, f.job, 1)),
    "a failure": lambda f: f.change(lambda s: lifecycle.fail_job(s, f.job_id, ERROR, token=1)),
    "a failed attempt": lambda f: f.change(
        lambda s: lifecycle.retry_or_fail_job(s, f.job, token=1, error=ERROR, max_failures=3)
    ),
    "a crash": lambda f: f.change(
        lambda s: lifecycle.retry_or_fail_job(s, f.job, token=1, error=ERROR, max_failures=1, crash=True)
    ),
    "a preemption": lambda f: f.change(lambda s: lifecycle.requeue_job(s, f.job_id, 1, reason="x")),
    "a pause": lambda f: f.change(lambda s: lifecycle.complete_pause(s, f.job_id, 1)),
    "a timeout": lambda f: f.change(lambda s: lifecycle.time_out_job(s, f.job_id, token=1)),
}


@pytest.mark.slow
@pytest.mark.parametrize("path", JOB_PATHS)
def test_a_stale_worker_s_write_is_refused_and_leaves_no_trace(world: World, tmp_path: Path, path: str) -> None:
    frozen = Frozen(world, tmp_path / "folder")
    before = rows_of(world)
    with pytest.raises((StaleLease, LeaseLost)):
        JOB_PATHS[path](frozen)
    assert rows_of(world) == before
    assert world.blobs(f"jobs/{frozen.job_id}/attempt-1/{OUTPUT_FOLDER}") == []
    with world.db.write() as session:
        succeed(session, frozen.job, 2)  # the one that holds the job is not disturbed
    assert world.row(frozen.job_id).state == JobState.SUCCEEDED


EXPORT_PATHS: dict[str, Callable[[Any, ModelExportRow, World], object]] = {
    "ready": lambda s, export, _: exports.publish_export(
        s, export, token=1, blob_key="k", size=1, sha256="0" * 64, verification=None
    ),
    "failed": lambda s, export, w: exports.fail_export(s, export, w.settings, token=1, error=ERROR),
    "failed attempt": lambda s, export, w: exports.retry_or_fail_export(s, export, w.settings, token=1, error=ERROR),
    "given back": lambda s, export, w: exports.requeue_export(s, export, w.settings, token=1),
}


@pytest.mark.slow
@pytest.mark.parametrize("path", EXPORT_PATHS)
def test_a_stale_exporter_s_write_is_refused(world: World, path: str) -> None:
    job_id = world.job()
    with world.db.write() as session:
        started = lifecycle.start_job(session, job_id, owner="w", lease_seconds=60)
        assert started is not None
        succeed(session, started, 1)
    ask(world, job_id, "adapter")
    with world.db.write() as session:
        export = exports.start_export(session, owner="w", lease_seconds=60)
        assert export is not None
        exports.requeue_export(session, export, world.settings, token=1)
        again = exports.start_export(session, owner="v", lease_seconds=60)
        assert again is not None
        assert again.lease_token == 2
    before = rows_of(world)
    with pytest.raises(StaleLease), world.db.write() as session:
        EXPORT_PATHS[path](session, export, world)
    assert rows_of(world) == before


def rows_of(world: World) -> list[tuple[Any, ...]]:
    """Return every row that a worker's write could change."""
    tables = (
        JobRow,
        JobEventRow,
        JobCheckpointRow,
        JobArtifactRow,
        FileRow,
        FineTunedModelRow,
        ModelExportRow,
        OutboxRow,
    )
    with world.db.read() as session:
        return [tuple(row) for table in tables for row in session.execute(select(*table.__table__.columns))]


@pytest.mark.slow
@pytest.mark.parametrize("other", ["success", "failure", "preemption", "lost worker", "pause"])
def test_a_cancel_that_comes_with_another_change_wins_or_comes_too_late(world: World, other: str) -> None:
    outcomes: set[str] = set()
    for _ in range(12):
        job_id = world.job()
        job = claim(world, job_id)
        changes: dict[str, Callable[[Any], object]] = {
            "success": lambda s, job=job: succeed(s, job, 1),
            "failure": lambda s, job=job: lifecycle.fail_job(s, job.id, ERROR, token=1),
            "preemption": lambda s, job=job: lifecycle.requeue_job(s, job.id, 1, reason="x"),
            "lost worker": lambda s, job=job: lifecycle.retry_or_fail_job(
                s, job, token=1, error=ERROR, max_failures=3, crash=True
            ),
            "pause": lambda s, job=job: lifecycle.complete_pause(s, job.id, 1),
        }
        cancelled = race(world, [changes[other], *[lambda s, job_id=job_id: lifecycle.cancel_job(s, job_id)] * 2])
        state = world.row(job_id).state
        outcomes.add(state)
        if any(cancelled[1:]):
            assert state == JobState.CANCELLED
            assert cancelled[1:].count(True) == 1
        else:
            assert state in (JobState.SUCCEEDED, JobState.FAILED)
        told = [row for row in world.outbox(Topic.TELL_WEBHOOKS) if row["object_id"] == job_id]
        assert [row["type"] for row in told] == [f"fine_tuning.job.{state}"]
        assert bool(world.artifacts(job_id)) is (state == JobState.SUCCEEDED)
        assert (world.row(job_id).fine_tuned_model is not None) is (state == JobState.SUCCEEDED)
    assert outcomes <= TERMINAL


def race(world: World, actions: list[Callable[[Any], object]]) -> list[object]:
    """Run all at once, each in its transaction; return what each returned, or its StaleLease."""
    barrier, found = threading.Barrier(len(actions)), list[object]([None] * len(actions))

    def act(number: int) -> None:
        barrier.wait()
        try:
            with world.db.write() as session:
                found[number] = actions[number](session)
        except StaleLease as error:
            found[number] = error

    threads = [threading.Thread(target=act, args=(number,)) for number in range(len(actions))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


@pytest.mark.slow
@pytest.mark.parametrize(
    "state", ["validating", "queued", "waiting", "held", "retrying", "running", "pausing", "paused"]
)
def test_a_cancel_is_the_end_in_every_state(world: World, state: str) -> None:
    job_id = world.job()
    columns: dict[str, dict[str, Any]] = {
        "validating": {"state": JobState.VALIDATING},
        "waiting": {"waits_for": "ftjob-parent"},
        "held": {"held_by": "running_jobs"},
        "retrying": {"retry_at": 4e9},
        "running": {"state": JobState.RUNNING, "lease_token": 1},
        "pausing": {"state": JobState.RUNNING, "lease_token": 1, "pause_requested": True},
        "paused": {"state": JobState.PAUSED},
    }
    with world.db.write() as session:
        if state in columns:
            session.execute(update(JobRow).where(JobRow.id == job_id).values(**columns[state]))
    with world.db.write() as session:
        assert lifecycle.cancel_job(session, job_id)
    with world.db.write() as session:
        assert lifecycle.start_job(session, job_id, owner="w", lease_seconds=60) is None
        assert not lifecycle.queue_up(session, job_id)
        assert not lifecycle.release_job(session, job_id)
        assert not lifecycle.resume_job(session, job_id)
        assert not lifecycle.pause_job(session, job_id)
        job = repository.by_id(session, job_id)
        assert job is not None
    for change in (
        lambda s: succeed(s, job, job.lease_token),
        lambda s: lifecycle.fail_job(s, job_id, ERROR),
        lambda s: lifecycle.requeue_job(s, job_id, job.lease_token, reason="x"),
        lambda s: lifecycle.complete_pause(s, job_id, job.lease_token),
    ):
        with pytest.raises(StaleLease), world.db.write() as session:
            change(session)
    assert (world.row(job_id).state, world.row(job_id).pause_requested) == (JobState.CANCELLED, False)
