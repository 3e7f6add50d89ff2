"""An attempt from claim to end, with a real child process as the trainer."""

from __future__ import annotations

import hashlib
import io
import json
import os
import threading
import zipfile
from pathlib import Path

import pytest
from sqlalchemy import update

from service.jobs import lifecycle, results_repository
from service.kit.outbox import Topic
from service.tables.jobs import JobRow, JobState
from service.worker.run import run_job
from tests.service.worker.scripted_trainer import WARNING
from tests.service.worker.world import World

pytestmark = pytest.mark.integration


def test_a_job_succeeds_and_its_files_are_those_that_the_trainer_left(world: World) -> None:
    job_id = world.job()
    world.run(job_id)

    job = world.row(job_id)
    assert job.state == JobState.SUCCEEDED, job.error
    assert job.fine_tuned_model == f"ft:tiny:burnish:demo:{job_id[-8:]}"
    assert (job.trained_tokens, job.resolved, job.estimated_finish) == (40, {"n_epochs": 3}, None)
    artifacts = world.artifacts(job_id)
    assert set(artifacts) == {"adapter", "report.json", "report.html"}
    adapter = artifacts["adapter"]
    assert adapter.filename == f"ft-tiny-burnish-demo-{job_id[-8:]}.zip"
    data = world.read(adapter.blob_key)
    assert (hashlib.sha256(data).hexdigest(), len(data)) == (adapter.sha256, adapter.bytes)
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        assert archive.testzip() is None
        assert archive.namelist() == [
            "README.md",
            "adapter_config.json",
            "adapter_model.safetensors",
            "manifest.json",
            "tokenizer.json",
        ]
        assert archive.read("README.md").decode() == "# 模型卡"
    assert f"jobs/{job_id}/attempt-1/output/manifest.json" in world.blobs(f"jobs/{job_id}")
    assert list(world.settings.work.iterdir()) == []
    assert [payload["type"] for payload in world.outbox(Topic.TELL_WEBHOOKS)] == ["fine_tuning.job.succeeded"]


def test_events_have_the_wires_form(world: World) -> None:
    job_id = world.job()
    world.run(job_id)
    events = {event.once_key: event for event in world.events(job_id) if event.once_key}

    step = events["step:2"]
    assert (step.type, step.message) == ("metrics", "Step 2/4: training loss=1.23")
    assert step.data is not None
    assert step.data["train_loss"] == 1.234
    assert step.data["seconds_left"] == 7.0
    full = events["evaluation:tuned:4:full"]
    assert full.data is not None
    assert full.data["full_valid_loss"] == 2.0
    assert "valid_loss" in (events["evaluation:base:4:part"].data or {})
    warning = next(event for event in events.values() if event.level == "warn")
    assert warning.message == WARNING
    assert events["configured"].message == "批量大小为 1"


def test_the_trainer_sees_no_secret(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("BURNISH_SECRET_KEY", "AWS_SECRET_ACCESS_KEY", "AWS_ACCESS_KEY_ID", "HF_TOKEN", "MY_PASSWORD"):
        monkeypatch.setenv(name, "x" * 40)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    job_id = world.job()
    world.run(job_id)

    environment = json.loads(world.read(world.artifacts(job_id)["report.json"].blob_key))
    assert "x" * 40 not in environment.values()
    assert not [name for name in environment if name.startswith(("BURNISH_", "AWS_"))]
    assert environment["CUDA_VISIBLE_DEVICES"] == "3"
    assert environment["HF_HUB_OFFLINE"] == "1"
    assert environment["OMP_NUM_THREADS"] == "5"


def test_only_one_of_several_workers_gets_a_job(world: World) -> None:
    job_id = world.job()
    claims: list[bool] = []
    barrier = threading.Barrier(4)

    def claim(owner: str) -> None:
        barrier.wait()
        with world.db.write() as session:
            claims.append(lifecycle.start_job(session, job_id, owner=owner, lease_seconds=60) is not None)

    threads = [threading.Thread(target=claim, args=(f"worker-{number}",)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(claims) == [False, False, False, True]
    world.run(job_id)
    assert world.row(job_id).lease_token == 1
    assert not world.blobs(f"jobs/{job_id}")


def test_cancel_kills_the_trainer_and_nothing_more_is_written(world: World) -> None:
    job_id = world.job()
    pids: list[int] = []
    others = set(_children_of_this_process())  # servers of fixtures that outlive one test

    def cancel() -> None:
        pids.extend(set(_children_of_this_process()) - others)
        with world.db.write() as session:
            assert lifecycle.cancel_job(session, job_id)

    watcher = world.meanwhile(lambda: world.has_step(job_id, 2), cancel)
    world.run(job_id, "wait")
    watcher.join()

    assert world.row(job_id).state == JobState.CANCELLED
    assert world.messages(job_id)[-1] == "The job was cancelled"
    assert pids
    assert not [pid for pid in pids if Path(f"/proc/{pid}").exists()]
    assert list(world.settings.work.iterdir()) == []


def test_a_paused_job_keeps_a_checkpoint_and_resumes_there(world: World) -> None:
    job_id = world.job()

    def pause() -> None:
        with world.db.write() as session:
            assert lifecycle.pause_job(session, job_id)

    watcher = world.meanwhile(lambda: world.has_step(job_id, 2), pause)
    world.run(job_id, "wait")
    watcher.join()
    job = world.row(job_id)
    assert (job.state, job.pause_requested, job.failures, job.preemptions) == (JobState.PAUSED, False, 0, 0)
    assert world.messages(job_id)[-1] == "The job is paused at the checkpoint of step 3; resume it to continue"
    world.run(job_id)  # nobody may take it
    assert world.row(job_id).lease_token == 1

    with world.db.write() as session:
        assert lifecycle.resume_job(session, job_id)
    world.run(job_id)
    assert world.row(job_id).state == JobState.SUCCEEDED
    steps = [event.once_key for event in world.events(job_id) if (event.once_key or "").startswith("step:")]
    assert sorted(steps) == ["step:1", "step:2", "step:4"], "step 3 is the checkpoint's: the script does not tell it"


def test_a_stale_worker_publishes_nothing(world: World) -> None:
    job_id = world.job()
    taken: list[int] = []

    def take_over() -> None:
        with world.db.write() as session:
            query = update(JobRow).where(JobRow.id == job_id)
            session.execute(query.values(lease_token=JobRow.lease_token + 1, lease_owner="worker-2"))
        taken.append(len(world.events(job_id)))

    watcher = world.meanwhile(lambda: world.has_step(job_id, 2), take_over)
    world.run(job_id, "wait")
    watcher.join()

    job = world.row(job_id)
    assert (job.state, job.lease_token, job.lease_owner) == (JobState.RUNNING, 2, "worker-2")
    assert len(world.events(job_id)) == taken[0]
    assert not world.blobs(f"jobs/{job_id}/attempt-1/output")


def test_a_stopping_worker_requeues_its_job_and_the_next_attempt_resumes(world: World) -> None:
    job_id = world.job()
    watcher = world.meanwhile(lambda: world.has_step(job_id, 2), world.stop.set)
    world.run(job_id, "wait")
    watcher.join()

    job = world.row(job_id)
    assert (job.state, job.preemptions, job.failures) == (JobState.QUEUED, 1, 0)
    assert len(world.outbox(Topic.ENQUEUE_JOB)) == 2
    with world.db.read() as session:
        checkpoint = results_repository.latest_checkpoint(session, job_id)
    assert checkpoint is not None
    assert checkpoint.step == 3

    world.stop.clear()
    world.run(job_id)
    assert world.row(job_id).state == JobState.SUCCEEDED
    steps = [event.once_key for event in world.events(job_id) if event.type == "metrics" and event.once_key]
    assert [key for key in steps if key.startswith("step:")] == ["step:1", "step:2", "step:4"]
    keys = [event.once_key for event in world.events(job_id) if event.once_key]
    assert len(keys) == len(set(keys))


def test_a_stubborn_trainer_is_killed_and_another_worker_resumes(tmp_path: Path) -> None:
    world = World(tmp_path / "w", stop_seconds=0.3)
    job_id = world.job()
    watcher = world.meanwhile(lambda: world.has_step(job_id, 2), world.stop.set)
    world.run(job_id, "stubborn")
    watcher.join()
    assert (world.row(job_id).state, world.row(job_id).preemptions) == (JobState.QUEUED, 1)
    world.stop.clear()
    run_job(world.runtime("succeed", owner="worker-2"), job_id)
    job = world.row(job_id)
    assert (job.state, job.lease_owner, job.failures, job.crashes) == (JobState.SUCCEEDED, "worker-2", 0, 0)
    keys = [event.once_key or "" for event in world.events(job_id) if event.type == "metrics"]
    assert [key for key in keys if key.startswith("step:")] == ["step:1", "step:2", "step:3", "step:4"]
    world.close()


def test_a_broken_checkpoint_is_left_aside_with_a_warning(world: World) -> None:
    job_id = world.job()
    world.run(job_id, "fault")
    key = f"jobs/{job_id}/attempt-1/checkpoints/step-2/step.txt"
    assert world.read(key) == b"2"
    world.storage.put(key, [b"9"])
    world.run(job_id)

    assert world.row(job_id).state == JobState.SUCCEEDED
    assert any("The checkpoint at step 2 is damaged" in message for message in world.messages(job_id))
    assert any("training starts from the beginning" in message for message in world.messages(job_id))
    assert world.has_step(job_id, 1)


def test_the_base_is_prepared_once_a_machine(world: World) -> None:
    first, second = world.job(), world.job()
    world.run(first)
    world.run(second)
    assert any("Preparing the base model tiny" in message for message in world.messages(first))
    assert not any("Preparing the base model" in message for message in world.messages(second))
    assert [path.name for path in world.settings.bases.iterdir() if not path.name.startswith(".")] == [
        f"tiny-{world.context.catalog.models[0].fingerprint[:12]}"
    ]


def test_a_job_that_is_not_queued_is_left_alone(world: World) -> None:
    job_id = world.job()
    with world.db.write() as session:
        lifecycle.cancel_job(session, job_id)
    before = len(world.events(job_id))
    run_job(world.runtime("succeed"), job_id)
    assert len(world.events(job_id)) == before


def _children_of_this_process() -> list[int]:
    return [int(pid) for pid in Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split()]
