from __future__ import annotations

import os
from collections.abc import Callable
from datetime import timedelta

import pytest
from sqlalchemy import select, update

from service.context import Context
from service.controller import garbage
from service.controller.garbage import AttemptSweeper, delete_blobs, delete_expired_files, remove_abandoned
from service.jobs import results_repository
from service.jobs.lifecycle import PublishedFile, complete_job
from service.kit import outbox
from service.kit.db import db_now
from service.kit.outbox import OutboxRow, Topic
from service.queue.memory import MemoryJobQueue
from service.storage.errors import StorageUnavailable
from service.tables.files import FileRow
from service.tables.jobs import JobRow, JobState
from tests.service.controller.conftest import MakeFile, MakeJob

ReadJob = Callable[[str], JobRow]


def put(context: Context, *keys: str) -> None:
    for key in keys:
        context.storage.put(key, [b"x"])


def keys_of(context: Context, prefix: str) -> set[str]:
    return {blob.key for blob in context.storage.list(prefix)}


def ended_long_ago(context: Context, job_id: str) -> None:
    with context.db.write() as session:
        session.execute(update(JobRow).where(JobRow.id == job_id).values(finished_at=db_now() - 3600))


def publish(context: Context, job: JobRow) -> None:
    home = f"jobs/{job.id}/attempt-2"
    csv, adapter = (
        PublishedFile(name, name, "text/plain", f"{home}/{name}", 1, "0" * 64) for name in ("result.csv", "adapter.zip")
    )
    with context.db.write() as session:
        complete_job(
            session,
            job,
            token=2,
            trained_tokens=1,
            kind="adapter",
            manifest_sha256="0" * 64,
            blob_prefix=f"{home}/adapter",
            result_csv=csv,
            artifacts=[adapter],
        )


def test_blobs_are_deleted_by_key_and_by_prefix(context: Context, queue: MemoryJobQueue) -> None:
    put(context, "files/a", "files/b", "jobs/x/attempt-1/a", "jobs/x/attempt-10/a")
    with context.db.write() as session:
        outbox.add_effect(session, Topic.DELETE_BLOBS, key="files/a")
        outbox.add_effect(session, Topic.DELETE_BLOBS, key="files/absent")
        outbox.add_effect(session, Topic.DELETE_BLOBS, prefix="jobs/x/attempt-1")
    assert delete_blobs(context, queue) == 3
    assert keys_of(context, "") == {"files/b", "jobs/x/attempt-10/a"}
    assert delete_blobs(context, queue) == 0


def test_a_key_that_no_store_can_hold_is_given_up_with_its_reason(context: Context, queue: MemoryJobQueue) -> None:
    with context.db.write() as session:
        outbox.add_effect(session, Topic.DELETE_BLOBS, key="../secret")
        outbox.add_effect(session, Topic.DELETE_BLOBS, prefix="")
    delete_blobs(context, queue)
    with context.db.read() as session:
        rows = session.scalars(select(OutboxRow)).all()
    assert all(row.done_at is not None and row.error for row in rows)


def test_a_store_that_is_away_leaves_the_row_due(
    context: Context, queue: MemoryJobQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(context, "files/a")
    with context.db.write() as session:
        outbox.add_effect(session, Topic.DELETE_BLOBS, key="files/a")

    def away(*_: object) -> None:
        raise StorageUnavailable("The blob store is away.")

    with monkeypatch.context() as patch:
        patch.setattr(type(context.storage), "delete", away)
        with pytest.raises(StorageUnavailable):
            delete_blobs(context, queue)
    assert delete_blobs(context, queue) == 1
    assert keys_of(context, "files") == set()


def test_expired_files_lose_row_and_bytes_and_others_stay(
    context: Context, queue: MemoryJobQueue, make_file: MakeFile
) -> None:
    expired, later, forever = make_file(expires_at=db_now() - 1), make_file(expires_at=db_now() + 60), make_file()
    assert delete_expired_files(context, queue) == 1
    delete_blobs(context, queue)
    assert keys_of(context, "files") == {f"files/{later}", f"files/{forever}"}
    with context.db.read() as session:
        assert session.scalar(select(FileRow).where(FileRow.id == expired)) is None


def test_a_succeeded_job_keeps_its_published_attempt_and_recorded_checkpoints(
    context: Context, queue: MemoryJobQueue, make_job: MakeJob, job_of: ReadJob
) -> None:
    job_id = make_job(state=JobState.RUNNING, lease_token=2)
    home = f"jobs/{job_id}"
    kept = {
        f"{home}/attempt-1/checkpoints/step-10/model",
        f"{home}/attempt-2/adapter.zip",
        f"{home}/attempt-2/result.csv",
        f"{home}/attempt-2/manifest.json",
    }
    left = {
        f"{home}/attempt-1/adapter.zip",
        f"{home}/attempt-1/checkpoints/step-100/model",
        f"{home}/attempt-20/adapter.zip",
    }
    put(context, *kept, *left, "jobs/another/attempt-1/adapter.zip")
    with context.db.write() as session:
        results_repository.add_checkpoint(
            session,
            job_id,
            step=10,
            metrics={},
            blob_prefix=f"{home}/attempt-1/checkpoints/step-10",
            manifest_sha256="0" * 64,
        )
    publish(context, job_of(job_id))
    ended_long_ago(context, job_id)
    sweep = AttemptSweeper()
    assert sweep(context, queue) == len(left)
    assert keys_of(context, home) == kept
    assert keys_of(context, "jobs/another")
    assert sweep(context, queue) == 0


@pytest.mark.parametrize("state", [JobState.FAILED, JobState.CANCELLED])
def test_a_job_without_a_result_keeps_nothing(
    context: Context, queue: MemoryJobQueue, make_job: MakeJob, state: JobState
) -> None:
    job_id = make_job(state=state)
    put(context, f"jobs/{job_id}/attempt-1/adapter.zip")
    ended_long_ago(context, job_id)
    AttemptSweeper()(context, queue)
    assert keys_of(context, "jobs") == set()


def test_jobs_that_run_or_ended_just_now_are_left_alone(
    context: Context, queue: MemoryJobQueue, make_job: MakeJob
) -> None:
    running = make_job(state=JobState.RUNNING)
    just_now = make_job(state=JobState.CANCELLED, finished_at=db_now())
    put(context, f"jobs/{running}/attempt-1/a", f"jobs/{just_now}/attempt-1/a")
    sweep = AttemptSweeper()
    sweep(context, queue)
    assert len(keys_of(context, "jobs")) == 2
    ended_long_ago(context, just_now)
    sweep(context, queue)
    assert keys_of(context, "jobs") == {f"jobs/{running}/attempt-1/a"}


def test_a_pass_is_bounded_and_the_next_continues(
    context: Context, queue: MemoryJobQueue, make_job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(garbage, "_JOBS_A_PASS", 2)
    for _ in range(5):
        job_id = make_job(state=JobState.FAILED, finished_at=db_now() - 3600)
        put(context, f"jobs/{job_id}/attempt-1/a")
    sweep = AttemptSweeper()
    assert [sweep(context, queue) for _ in range(4)] == [2, 2, 1, 0]


def test_uploads_that_were_never_ended_and_old_outbox_rows_go(context: Context, queue: MemoryJobQueue) -> None:
    abandoned, under_way = context.storage.writer("files/abandoned"), context.storage.writer("files/under-way")
    abandoned.write(b"half a file")
    for path in (context.settings.data / "blobs").rglob("*"):
        moment = path.stat().st_mtime - timedelta(days=2).total_seconds()
        os.utime(path, (moment, moment))
    under_way.write(b"half a file")
    with context.db.write() as session:
        session.add(OutboxRow(topic=Topic.DELETE_BLOBS, payload={}, done_at=db_now() - 90 * 86400))
        session.add(OutboxRow(topic=Topic.DELETE_BLOBS, payload={}, done_at=db_now() - 86400))
    assert remove_abandoned(context, queue) == 1
    with context.db.read() as session:
        assert len(session.scalars(select(OutboxRow)).all()) == 1
    assert under_way.commit().bytes == 11
    abandoned.abort()


def test_exports_are_not_leftovers_of_attempts(context: Context, queue: MemoryJobQueue, make_job: MakeJob) -> None:
    job_id = make_job(state=JobState.FAILED)
    ended_long_ago(context, job_id)
    export = f"jobs/{job_id}/exports/ftexport-1/1/m.gguf"
    put(context, export, f"jobs/{job_id}/attempt-1/output/x")
    AttemptSweeper()(context, queue)
    assert keys_of(context, f"jobs/{job_id}") == {export}
