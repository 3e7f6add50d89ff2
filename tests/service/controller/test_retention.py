"""Checkpoints and results go when their time is over, unless something still needs them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import select, update

from service.context import Context
from service.controller import queries
from service.controller.garbage import delete_blobs
from service.controller.retention import Retention
from service.jobs import repository, results_repository
from service.jobs.lifecycle import PublishedFile, complete_job
from service.jobs.retention import best_of
from service.kit.db import db_now
from service.models import repository as models
from service.queue.memory import MemoryJobQueue
from service.tables.files import FileRow
from service.tables.jobs import JobArtifactRow, JobCheckpointRow, JobRow, JobState
from service.tables.models import CheckpointPermissionRow, FineTunedModelRow
from tests.service.controller.conftest import MakeJob

ReadJob = Callable[[str], JobRow]
HOUR = {"anchor": "created_at", "seconds": 3600}


def checkpoints(context: Context, job_id: str, *steps: int, **losses: float) -> None:
    with context.db.write() as session:
        for step in steps:
            prefix = f"jobs/{job_id}/attempt-1/checkpoints/step-{step}"
            context.storage.put(f"{prefix}/weights", [b"x"])
            loss = losses.get(f"at_{step}")
            metrics = {} if loss is None else {"valid_loss": loss}
            kept = {"metrics": metrics, "blob_prefix": prefix, "manifest_sha256": "0"}
            results_repository.add_checkpoint(session, job_id, step=step, expires_in=-1, **kept)


def steps_of(context: Context, job_id: str) -> list[int]:
    with context.db.read() as session:
        return list(results_repository.checkpoint_steps(session, job_id))


def stored(context: Context, job_id: str) -> set[str]:
    return {blob.key.removeprefix(f"jobs/{job_id}/attempt-1/") for blob in context.storage.list(f"jobs/{job_id}")}


def publish(context: Context, job: JobRow) -> str:
    home = f"jobs/{job.id}/attempt-1/output"
    for name in ("adapter/weights", "adapter.zip", "report.json", "step_metrics.csv"):
        context.storage.put(f"{home}/{name}", [b"x"])
    csv, archive, report = (
        PublishedFile(name, name, "text/plain", f"{home}/{name}", 1, "0" * 64)
        for name in ("step_metrics.csv", "adapter.zip", "report.json")
    )
    with context.db.write() as session:
        return complete_job(
            session,
            job,
            token=1,
            trained_tokens=1,
            kind="adapter",
            manifest_sha256="0" * 64,
            blob_prefix=f"{home}/adapter",
            result_csv=csv,
            artifacts=[archive, report],
        )


def expire_results(context: Context) -> None:
    with context.db.write() as session:
        for table in (JobArtifactRow, FineTunedModelRow):
            session.execute(update(table).where(table.expires_at.is_not(None)).values(expires_at=db_now() - 1))


def test_expired_checkpoints_go_with_bytes_and_permissions(
    context: Context, queue: MemoryJobQueue, make_job: MakeJob
) -> None:
    job_id = make_job(state=JobState.SUCCEEDED, model_name="ft:m:o::x")
    checkpoints(context, job_id, 1, 2)
    with context.db.write() as session:
        models.share_model(session, job_id, "ft:m:o::x:ckpt-step-1", "proj_test")
        models.share_model(session, job_id, "ft:m:o::x", "proj_test")
        session.execute(update(JobCheckpointRow).where(JobCheckpointRow.step == 2).values(expires_at=db_now() + 60))
    assert Retention()(context, queue) == 1
    delete_blobs(context, queue)
    assert steps_of(context, job_id) == [2]
    assert stored(context, job_id) == {"checkpoints/step-2/weights"}
    with context.db.read() as session:
        assert session.scalars(select(CheckpointPermissionRow.model)).all() == ["ft:m:o::x"]


@pytest.mark.parametrize("state", [JobState.RUNNING, JobState.PAUSED, JobState.QUEUED])
def test_a_job_that_can_resume_keeps_its_last_checkpoint(
    context: Context, queue: MemoryJobQueue, make_job: MakeJob, state: JobState
) -> None:
    job_id = make_job(state=state)
    checkpoints(context, job_id, 1, 2, 3)
    step = Retention()
    step(context, queue)
    assert steps_of(context, job_id) == [3]
    with context.db.write() as session:
        session.execute(update(JobRow).values(state=JobState.CANCELLED))
    step(context, queue)
    assert steps_of(context, job_id) == []


@pytest.mark.parametrize("role", ["start", "reward"])
def test_a_checkpoint_is_kept_until_the_job_that_starts_from_it_ends(
    context: Context, queue: MemoryJobQueue, make_job: MakeJob, role: str
) -> None:
    parent = make_job(state=JobState.SUCCEEDED)
    checkpoints(context, parent, 1, 2)
    columns: dict[str, Any] = {f"{role}_job": parent, f"{role}_step": 1}
    child = make_job(state=JobState.QUEUED, **columns)
    step = Retention()
    step(context, queue)
    assert steps_of(context, parent) == [1]
    with context.db.write() as session:
        session.execute(update(JobRow).where(JobRow.id == child).values(state=JobState.FAILED))
    step(context, queue)
    assert steps_of(context, parent) == []


def test_a_checkpoint_that_is_another_models_base_stays(
    context: Context, queue: MemoryJobQueue, make_job: MakeJob
) -> None:
    parent = make_job(state=JobState.SUCCEEDED, model_name="ft:m:o::x")
    checkpoints(context, parent, 1, 2)
    child = make_job(state=JobState.SUCCEEDED)
    with context.db.write() as session:
        session.execute(update(JobRow).where(JobRow.id == child).values(base="ft:m:o::x:ckpt-step-2"))
    Retention()(context, queue)
    assert steps_of(context, parent) == [2]


def test_of_many_checkpoints_the_last_and_the_best_are_kept(
    context: Context, queue: MemoryJobQueue, make_job: MakeJob
) -> None:
    job_id = make_job(state=JobState.RUNNING, keep_checkpoints=2)
    checkpoints(context, job_id, 1, 2, 3, 4, 5, at_1=2.0, at_2=1.0, at_3=1.5, at_4=1.0)
    with context.db.write() as session:
        session.execute(update(JobCheckpointRow).values(expires_at=None))
    assert Retention()(context, queue) == 2
    assert steps_of(context, job_id) == [2, 4, 5], "of two that are equally good the first is the best"
    delete_blobs(context, queue)
    assert len(stored(context, job_id)) == 3
    assert Retention()(context, queue) == 0


def test_the_best_is_by_the_methods_own_measure() -> None:
    found = [
        JobCheckpointRow(step=step, metrics={"full_valid_reward": reward, "valid_loss": -reward})
        for step, reward in ((1, 0.1), (2, 0.9), (3, 0.5))
    ]
    best = best_of(found, "grpo")
    assert best is not None
    assert best.step == 2
    assert best_of([JobCheckpointRow(step=1, metrics={"train_loss": 1.0})], "supervised") is None


def test_what_is_needed_holds_up_nothing_behind_it(
    context: Context, queue: MemoryJobQueue, make_job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.controller.retention._BATCH", 1)
    running, ended = make_job(state=JobState.RUNNING), make_job(state=JobState.FAILED)
    checkpoints(context, running, 1)
    checkpoints(context, ended, 1)
    step = Retention()
    step(context, queue)
    step(context, queue)
    assert (steps_of(context, running), steps_of(context, ended)) == ([1], [])


def test_results_go_all_together(context: Context, queue: MemoryJobQueue, make_job: MakeJob, job_of: ReadJob) -> None:
    job_id = make_job(state=JobState.RUNNING, lease_token=1, expires_after={"artifacts": HOUR, "checkpoints": None})
    checkpoints(context, job_id, 1)
    with context.db.write() as session:
        session.execute(update(JobCheckpointRow).values(expires_at=None))
    name = publish(context, job_of(job_id))
    other = make_job(state=JobState.RUNNING, lease_token=1)
    publish(context, job_of(other))
    with context.db.read() as session:
        model = models.of_job(session, job_id)
        file = session.scalar(select(FileRow).where(FileRow.id == job_of(job_id).result_file))
    assert model is not None
    assert file is not None
    assert model.expires_at == pytest.approx(model.created_at + 3600, abs=5)
    assert file.expires_at == pytest.approx(model.expires_at, abs=5)
    step = Retention()
    assert step(context, queue) == 0
    expire_results(context)
    child = make_job(state=JobState.QUEUED, start_job=job_id)
    assert step(context, queue) == 0, "a job that waits goes on from it"
    with context.db.write() as session:
        session.execute(update(JobRow).where(JobRow.id == child).values(state=JobState.CANCELLED))
    assert step(context, queue) == 1
    assert step(context, queue) == 0
    delete_blobs(context, queue)
    assert stored(context, job_id) == {"checkpoints/step-1/weights"}
    assert len(stored(context, other)) == 4
    with context.db.read() as session:
        assert models.of_job(session, job_id) is None
        assert results_repository.find_artifact(session, job_id, "adapter.zip") is None
        assert session.scalar(select(FileRow).where(FileRow.id == file.id)) is None
        assert [event.message for event in repository.events_since(session, job_id, 0)][-1].startswith("The results")
    assert job_of(job_id).fine_tuned_model == name, "the job still says what it made"


def test_checkpoints_expire_after_their_jobs_requested_time(context: Context, make_job: MakeJob) -> None:
    job_id = make_job(state=JobState.RUNNING)
    with context.db.write() as session:
        blobs = {"metrics": {}, "blob_prefix": "p", "manifest_sha256": "0"}
        results_repository.add_checkpoint(session, job_id, step=1, expires_in=3600, **blobs)
        results_repository.add_checkpoint(session, job_id, step=2, **blobs)
    with context.db.read() as session:
        first, second = results_repository.all_checkpoints(session, job_id)
        assert first.expires_at == pytest.approx(first.created_at + 3600, abs=5)
        assert second.expires_at is None
        assert queries.fetch_expired_checkpoints(session, after=0, limit=10) == []
