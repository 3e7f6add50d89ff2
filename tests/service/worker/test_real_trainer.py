"""The worker with the real trainer and a tiny real model: preparation, training, resuming, publishing."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import pytest

from service.context import open_context
from service.kit.settings import Settings
from service.tables.jobs import JobState
from service.worker.run import WorkerRuntime, run_job
from tests.fixtures.preloaded import preloaded_commands
from tests.service.worker.world import World

pytestmark = pytest.mark.integration


def test_a_real_training_is_stopped_resumed_and_published(tmp_path: Path, tiny_base: Path) -> None:
    world = World(tmp_path, base=tiny_base, stop_seconds=120, lease_seconds=120)
    job_id = world.job(n_epochs=50)  # long enough for the stop to find it at work, on any machine
    runtime = WorkerRuntime(context=world.context, owner="worker-1", stop=world.stop, **preloaded_commands())

    watcher = world.meanwhile(lambda: world.has_step(job_id, 1), world.stop.set)
    run_job(runtime, job_id)
    watcher.join()
    assert world.row(job_id).state == JobState.QUEUED
    assert not list(world.settings.work.iterdir())
    world.stop.clear()
    # Another machine: it has nothing but the database and the store.
    given = {"data": tmp_path / "b", "secret_key": "k" * 32}
    shared = {"database_url": world.settings.database, "storage_url": world.settings.storage}
    elsewhere = Settings.model_validate(world.settings.model_dump(exclude_unset=True) | given | shared)
    context = open_context(elsewhere)
    run_job(WorkerRuntime(context=context, owner="worker-2", stop=world.stop, **preloaded_commands()), job_id)
    context.db.close()

    job = world.row(job_id)
    assert job.lease_owner == "worker-2"
    assert (job.lease_token, job.preemptions, job.failures) == (2, 1, 0)
    assert job.state == JobState.SUCCEEDED, job.error
    assert job.resolved is not None
    assert job.resolved["n_epochs"] == 50
    assert (job.trained_tokens or 0) > 0
    steps = [
        int(event.data["step"])
        for event in world.events(job_id)
        if (event.once_key or "").startswith("step:") and event.data
    ]
    assert steps == list(range(1, job.resolved["total_steps"] + 1))
    with zipfile.ZipFile(io.BytesIO(world.read(world.artifacts(job_id)["adapter"].blob_key))) as archive:
        assert {"adapter_config.json", "adapter_model.safetensors", "manifest.json", "README.md"} <= set(
            archive.namelist()
        )
    world.close()
