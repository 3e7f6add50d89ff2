"""Checkpoints on their way to the store and back: beside the training, whole or not at all."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from service.jobs import lifecycle, results_repository
from service.staging.hold import UnleasedHold
from service.storage import Storage
from service.storage.errors import StorageUnavailable
from service.tables.jobs import JobState
from service.worker.run import WorkerRuntime, run_job
from service.worker.stage import _fetch_checkpoint
from tests.service.worker.world import World, eventually

pytestmark = pytest.mark.integration


class SlowStore:
    """The world's store, which takes no checkpoint before it is `open`."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self.open = threading.Event()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._storage, name)

    def put(self, key: str, chunks: Iterable[bytes]) -> Any:
        if "/checkpoints/" in key:
            assert self.open.wait(120)
        return self._storage.put(key, chunks)


def on(world: World, storage: Any, mode: str) -> WorkerRuntime:
    runtime = world.runtime(mode)
    return dataclasses.replace(runtime, context=dataclasses.replace(world.context, storage=storage))


def checkpoints(world: World, job_id: str) -> list[int]:
    with world.db.read() as session:
        return [checkpoint.step for checkpoint in results_repository.all_checkpoints(session, job_id)]


def test_training_and_its_events_continue_while_a_checkpoint_is_stored(world: World) -> None:
    store, job_id, kept = SlowStore(world.storage), world.job(), list[int]()

    def release() -> None:
        kept.extend(checkpoints(world, job_id))
        store.open.set()

    watcher = world.meanwhile(lambda: world.has_step(job_id, 4), release)
    run_job(on(world, store, "many_checkpoints"), job_id)
    watcher.join()
    assert world.row(job_id).state == JobState.SUCCEEDED
    assert kept == [], "the fourth step was told while the first checkpoint was still on its way"
    # The one under way and two that wait; the trainer had removed the first ones long since.
    found = checkpoints(world, job_id)
    assert found[-2:] == [3, 4]
    lost = [key.partition(":")[2] for key in keys(world, job_id) if key.startswith("lost-checkpoint:")]
    assert sorted([*found, *map(int, lost)]) == [1, 2, 3, 4]
    for step in found:
        assert world.read(f"jobs/{job_id}/attempt-1/checkpoints/step-{step}/step.txt") == str(step).encode()
    messages = world.messages(job_id)
    assert messages.index("Checkpoint created at step 4") < messages.index("The job has successfully completed")


@pytest.mark.parametrize("how", ["pause", "preemption"])
def test_a_job_lets_go_when_its_last_checkpoint_is_stored(world: World, how: str) -> None:
    store, job_id, states = SlowStore(world.storage), world.job(), list[str]()

    def ask() -> None:
        if how == "pause":
            with world.db.write() as session:
                assert lifecycle.pause_job(session, job_id)
        else:
            world.stop.set()
        waiting = world.settings.work / f"{job_id}-1" / "waiting" / "step-3"
        eventually(waiting.is_dir)  # the trainer has ended, its last checkpoint is to be stored
        states.append(world.row(job_id).state)
        store.open.set()

    watcher = world.meanwhile(lambda: world.has_step(job_id, 2), ask)
    run_job(on(world, store, "wait"), job_id)
    watcher.join()
    assert states == [JobState.RUNNING]
    assert world.row(job_id).state == (JobState.PAUSED if how == "pause" else JobState.QUEUED)
    assert checkpoints(world, job_id)[-1] == 3


def test_a_cancel_does_not_wait_for_a_store_that_is_away(tmp_path: Path) -> None:
    world = World(tmp_path, poll_seconds=0.5)
    tried = threading.Event()

    class Away(SlowStore):
        def put(self, key: str, chunks: Iterable[bytes]) -> Any:
            tried.set()
            raise StorageUnavailable("The store is away.")

    job_id = world.job()

    def cancel() -> None:
        with world.db.write() as session:
            assert lifecycle.cancel_job(session, job_id)

    watcher = world.meanwhile(tried.is_set, cancel)
    run_job(on(world, Away(world.storage), "succeed"), job_id)
    watcher.join()
    job = world.row(job_id)
    assert (job.state, job.failures, world.artifacts(job_id)) == (JobState.CANCELLED, 0, {})
    world.close()


def keys(world: World, job_id: str) -> list[str]:
    return [event.once_key or "" for event in world.events(job_id)]


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "cut": lambda data: data[: len(data) // 2],
    "empty": lambda _: b"",
    "flipped": lambda data: data[:1] + bytes([data[1] ^ 4 if len(data) > 1 else 4]) + data[2:],
}


def test_jobs_resume_from_the_newest_whole_checkpoint(world: World, tmp_path: Path) -> None:
    job_id = world.job()
    world.run(job_id, "fault")
    world.run(job_id, "fault")
    assert checkpoints(world, job_id) == [2, 3]
    told: list[str] = []

    class Hold(UnleasedHold):
        def report_progress(self, message: str, once_key: str, *, level: str = "info") -> None:
            told.append(message)

    hold, target = Hold("tests", stop=world.stop, poll_seconds=0.01), tmp_path / "checkpoint"
    prefix = f"jobs/{job_id}/attempt-2/checkpoints/step-3"
    names = [key.removeprefix(f"{prefix}/") for key in world.blobs(prefix)]
    assert {"manifest.json", "optimizer.pt", "adapter_model.safetensors"} < {*names}
    for name in names:
        data = world.read(f"{prefix}/{name}")
        for damage in (*DAMAGES.values(), None):
            if damage is None:
                world.storage.delete(f"{prefix}/{name}")
            else:
                world.storage.put(f"{prefix}/{name}", [damage(data)])
            assert _fetch_checkpoint(world.context, job_id, target, hold)
            assert (target / "step.txt").read_text() == "2"
            assert told.pop() == "The checkpoint at step 3 is damaged and cannot be used"
            for path in target.iterdir():
                path.unlink()
            target.rmdir()
        world.storage.put(f"{prefix}/{name}", [data])
    assert _fetch_checkpoint(world.context, job_id, target, hold)
    assert (target / "step.txt").read_text() == "3"
    assert told == []


def test_a_job_resumes_from_the_checkpoint_before_a_damaged_one(world: World) -> None:
    job_id = world.job()
    world.run(job_id, "fault")
    world.run(job_id, "fault")
    world.storage.put(f"jobs/{job_id}/attempt-2/checkpoints/step-3/optimizer.pt", [b"a pickle of somebody else"])
    world.run(job_id)
    assert world.row(job_id).state == JobState.SUCCEEDED
    assert [key for key in keys(world, job_id) if key.startswith("damaged:")] == ["damaged:3:3"]
    assert not any("from the beginning" in message for message in world.messages(job_id))
