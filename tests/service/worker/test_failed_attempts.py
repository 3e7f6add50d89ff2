"""Attempts that fail: which count, which are tried again and when, and what their owner reads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update

from service.jobs import lifecycle, repository
from service.jobs.queueing import explain_jobs
from service.kit import outbox
from service.kit.db import db_now
from service.kit.errors import Unavailable
from service.kit.outbox import Topic
from service.tables.jobs import JobRow, JobState
from service.worker import publish
from tests.service.worker.world import World

pytestmark = pytest.mark.integration


@pytest.mark.parametrize(
    ("mode", "counted", "code", "words"),
    [
        ("fault", "failures", "trainer_fault", "It broke"),
        ("silent_fault", "crashes", "trainer_crashed", "3 times in a row without the job getting any further"),
        ("killed", "crashes", "out_of_memory", "ran out of memory"),
        ("damaged", "failures", "result_damaged", "adapter_model.safetensors does not have the SHA-256"),
    ],
)
def test_faults_are_tried_again_until_the_budget_is_spent(
    world: World, mode: str, counted: str, code: str, words: str
) -> None:
    job_id = world.job()
    for attempt in range(1, world.settings.max_failures + 1):
        assert world.row(job_id).state == JobState.QUEUED
        world.run(job_id, mode)
        assert getattr(world.row(job_id), counted) == attempt
        assert not world.blobs(f"jobs/{job_id}/attempt-{attempt}/output")

    job = world.row(job_id)
    assert job.state == JobState.FAILED
    assert job.error is not None
    assert job.error["code"] == code
    assert words in job.error["message"]
    assert not world.artifacts(job_id)


def test_a_job_that_crashes_but_gets_further_each_time_comes_to_its_end(world: World) -> None:
    job_id = world.job()
    for step in (2, 3, 4):
        world.run(job_id, "killed_later")
        job = world.row(job_id)
        assert (job.state, job.crashes, job.crash_step, job.failures) == (JobState.QUEUED, 1, step, 0)
    world.run(job_id)
    assert world.row(job_id).state == JobState.SUCCEEDED


def test_a_failed_attempt_is_tried_again_after_a_growing_pause(tmp_path: Path) -> None:
    world = World(tmp_path, retry_seconds=30)
    job_id = world.job()
    for attempt, pause in enumerate((30, 120), start=1):
        world.run(job_id, "fault")
        assert f"trying again in {pause} s, failure {attempt} of 3" in world.messages(job_id)[-1]
        job = world.row(job_id)
        assert (job.state, job.lease_token, job.failures) == (JobState.QUEUED, attempt, attempt)
        world.run(job_id)  # nobody may take it yet
        assert world.row(job_id).lease_token == attempt
        with world.db.write() as session:
            assert repository.ready_jobs(session) == []
            (why,) = explain_jobs(session, world.settings, [job]).values()
            assert why is not None
            assert (why.reason, why.position) == ("retrying", None)
            assert "the next one may start in" in why.message
            assert [row.payload for row in outbox.fetch_due_effects(session, Topic.ENQUEUE_JOB)] == [
                {"job_id": job_id}
            ]  # the first
            session.execute(update(JobRow).values(retry_at=db_now() - 1))
    world.run(job_id)
    assert world.row(job_id).state == JobState.SUCCEEDED
    assert world.row(job_id).retry_at is None
    world.close()


def test_a_pause_between_attempts_neither_holds_up_a_cancel_nor_outlasts_one_of_its_owner(tmp_path: Path) -> None:
    world = World(tmp_path, retry_seconds=500)
    cancelled, paused = world.job(), world.job()
    for job_id in (cancelled, paused):
        world.run(job_id, "fault")
        assert world.row(job_id).retry_at is not None
    with world.db.write() as session:
        assert lifecycle.cancel_job(session, cancelled)
        assert lifecycle.pause_job(session, paused)
        assert lifecycle.resume_job(session, paused)
    assert [world.row(job_id).state for job_id in (cancelled, paused)] == [JobState.CANCELLED, JobState.QUEUED]
    world.run(paused)
    assert world.row(paused).state == JobState.SUCCEEDED
    world.close()


def test_the_users_fault_ends_the_job_at_once_with_the_trainers_words(world: World) -> None:
    job_id = world.job()
    world.run(job_id, "bad_input")
    job = world.row(job_id)
    assert job.state == JobState.FAILED
    assert job.error == {"code": "bad_rows", "message": "第 2 行不是对话", "param": "training_file"}


def test_a_deleted_file_is_one_clear_sentence(world: World) -> None:
    job_id = world.job()
    file_id = world.row(job_id).training_file
    world.storage.delete(f"files/{file_id}")
    world.run(job_id)
    error = world.row(job_id).error
    assert error is not None
    assert (error["code"], error["param"]) == ("file_deleted", "training_file")
    assert file_id in error["message"]


def test_changed_bytes_of_a_dataset_never_reach_the_trainer(world: World) -> None:
    job_id = world.job()
    world.storage.put(f"files/{world.row(job_id).training_file}", [b"other"])
    world.run(job_id)
    assert world.row(job_id).state == JobState.QUEUED
    assert any("SHA-256 of its upload" in message for message in world.messages(job_id))
    assert not any("Step" in message for message in world.messages(job_id))


def test_a_base_that_the_machine_lacks_fails_the_job(world: World) -> None:
    job_id = world.job(model="absent")
    world.run(job_id)
    error = world.row(job_id).error
    assert error is not None
    assert (error["code"], error["param"]) == ("base_model_unavailable", "model")
    assert "config.json" in error["message"]


def test_an_unexpected_error_of_ours_is_logged_and_counted(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("inner words")

    monkeypatch.setattr("service.worker.run.stage_job", broken)
    job_id = world.job()
    world.run(job_id)
    assert (world.row(job_id).state, world.row(job_id).failures) == (JobState.QUEUED, 1)
    assert "inner words" in caplog.text
    assert not any("inner words" in message for message in world.messages(job_id))


def test_a_full_disk_is_one_sentence(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("service.worker.run.stage_job", full)
    job_id = world.job()
    world.run(job_id)
    assert any("The disk of the worker is full" in message for message in world.messages(job_id))


def test_a_lost_answer_to_the_last_commit_does_not_delete_the_result(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []
    real = publish._record_success

    def succeed(*args: Any) -> None:
        calls.append(1)
        real(*args)
        if len(calls) == 1:
            raise Unavailable("The answer got lost.")

    monkeypatch.setattr(publish, "_record_success", succeed)
    job_id = world.job()
    world.run(job_id)
    assert world.row(job_id).state == JobState.SUCCEEDED
    assert world.read(world.artifacts(job_id)["adapter"].blob_key)
