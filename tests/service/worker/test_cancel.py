"""A cancelled job's worker is free again within 15 seconds, whatever it was at: the promise of docs/reliability.md."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from service.jobs import lifecycle
from service.staging import child
from service.tables.jobs import JobState
from service.worker.run import WorkerRuntime, run_job
from tests.service.worker.world import World, eventually

pytestmark = pytest.mark.integration

PROMISED = 15.0
# Programs that say where they are and then do not hear SIGTERM.
DEAF = """
import pathlib, signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
pathlib.Path({mark!r}).touch()
while True: time.sleep(1)
"""
DEAF_AT = """
import pathlib, signal, sys, time
sys.path.insert(0, {repository!r})
from trainer.contract.events import PhaseEvent
from trainer.kit.event_sink import EventSink
signal.signal(signal.SIGTERM, signal.SIG_IGN)
EventSink(pathlib.Path(sys.argv[1])).emit(PhaseEvent(phase={phase!r}, message="at it"))
pathlib.Path({mark!r}).touch()
while True: time.sleep(1)
"""
REPOSITORY = str(Path(__file__).parents[3])


def deaf(text: str, **values: str) -> tuple[str, ...]:
    return (sys.executable, "-c", text.format(**values))


def preparing(runtime: WorkerRuntime, mark: str) -> WorkerRuntime:
    return replace(runtime, prepare_command=deaf(DEAF, mark=mark))


def at(phase: str) -> Callable[[WorkerRuntime, str], WorkerRuntime]:
    def make(runtime: WorkerRuntime, mark: str) -> WorkerRuntime:
        return replace(runtime, trainer_command=deaf(DEAF_AT, mark=mark, phase=phase, repository=REPOSITORY))

    return make


WHERE = {
    "preparing a base": preparing,
    "loading": at("loading"),
    "training": at("training"),
    "evaluating": at("evaluating"),
    "exporting": at("exporting"),
}


@pytest.mark.parametrize(
    ("where", "asked"),
    [*((where, "cancelled") for where in WHERE), ("training", "stopping"), ("training", "pausing")],
)
def test_a_cancel_frees_the_worker_though_its_program_is_deaf(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str, asked: str
) -> None:
    if where != "training":  # the promise is held to the real patience there
        monkeypatch.setattr(child, "KILL_SECONDS", 0.5)
    world = World(tmp_path, stop_seconds=600)
    job_id, mark, moments = world.job(), tmp_path / "mark", list[float]()

    def cancel() -> None:
        if asked == "stopping":
            world.stop.set()
        elif asked == "pausing":
            with world.db.write() as session:
                assert lifecycle.pause_job(session, job_id)
        with world.db.write() as session:
            assert lifecycle.cancel_job(session, job_id)
        assert world.row(job_id).state == JobState.CANCELLED
        moments.append(time.monotonic())

    watcher = world.meanwhile(mark.exists, cancel)
    run_job(WHERE[where](world.runtime("succeed"), str(mark)), job_id)
    moments.append(time.monotonic())
    watcher.join()
    assert moments[1] - moments[0] < PROMISED
    assert world.row(job_id).state == JobState.CANCELLED
    assert list(world.settings.work.iterdir()) == []
    assert world.messages(job_id)[-1] == "The job was cancelled"
    world.close()


def test_a_cancel_while_the_result_goes_up_publishes_nothing(world: World) -> None:
    job_id, reached = world.job(), threading.Event()
    storage = world.storage

    class Endless:
        """A store that takes a result's bytes for ever."""

        def __getattr__(self, name: str) -> object:
            return getattr(storage, name)

        def put(self, key: str, chunks: object) -> object:
            if "/output/" not in key:
                return storage.put(key, chunks)  # type: ignore[arg-type]
            reached.set()

            def slowly() -> object:
                for chunk in chunks:  # type: ignore[attr-defined]
                    eventually(lambda: world.row(job_id).state == JobState.CANCELLED)
                    yield chunk
                    time.sleep(0.5)  # the worker looks at the row meanwhile

            return storage.put(key, slowly())  # type: ignore[arg-type]

    def cancel() -> None:
        with world.db.write() as session:
            assert lifecycle.cancel_job(session, job_id)

    watcher = world.meanwhile(reached.is_set, cancel)
    runtime = world.runtime("succeed")
    run_job(replace(runtime, context=replace(world.context, storage=Endless())), job_id)  # type: ignore[arg-type]
    watcher.join()
    assert world.row(job_id).state == JobState.CANCELLED
    assert world.artifacts(job_id) == {}
    assert world.blobs(f"jobs/{job_id}") == []
