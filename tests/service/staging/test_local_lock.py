"""The lock that this machine's workers share, with holders that work long, die or freeze."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest

from service.staging.bases import prepared_base
from service.staging.errors import WorkerStopping
from service.staging.hold import UnleasedHold
from service.staging.local_lock import only_one
from service.tables.jobs import JobState
from tests.fixtures.processes import wait_until
from tests.service.worker.world import PROJECT, World

HOLDER = """
import sys, threading
from pathlib import Path
from service.staging.hold import UnleasedHold
from service.staging.local_lock import only_one
hold = UnleasedHold("holder", stop=threading.Event(), poll_seconds=0.05)
with only_one(Path(sys.argv[1]), hold, poll_seconds=0.05, patience=float(sys.argv[2])):
    print("held", flush=True)
    sys.stdin.readline()
print("let go", flush=True)
"""


def take(path: Path, patience: float, stop: threading.Event | None = None) -> float:
    """Return how long it took."""
    began = time.monotonic()
    hold = UnleasedHold("waiter", stop=stop or threading.Event(), poll_seconds=0.05)
    with only_one(path, hold, poll_seconds=0.05, patience=patience):
        return time.monotonic() - began


@contextmanager
def holder(path: Path, patience: float) -> Generator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", HOLDER, str(path), str(patience)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == "held\n"
            yield process
        finally:
            process.kill()


@pytest.mark.integration
def test_a_holder_that_works_is_waited_for(tmp_path: Path) -> None:
    waited: list[float] = []
    with holder(tmp_path / "lock", patience=1) as process:
        waiter = threading.Thread(target=lambda: waited.append(take(tmp_path / "lock", patience=1)))
        waiter.start()
        waiter.join(4)
        assert waiter.is_alive()  # four times its patience
        said, _ = process.communicate("go on\n")
        assert said == "let go\n"
        waiter.join(30)
    assert len(waited) == 1


@pytest.mark.integration
def test_a_dead_holder_is_not_waited_for(tmp_path: Path) -> None:
    with holder(tmp_path / "lock", patience=3600) as process:
        process.kill()
        process.wait()
        take(tmp_path / "lock", patience=3600)


@pytest.mark.integration
@pytest.mark.faults
def test_a_frozen_holder_loses_its_turn_and_does_no_harm_when_it_wakes(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with holder(path, patience=1) as frozen:
        frozen.send_signal(signal.SIGSTOP)
        take(path, patience=1)
        with holder(path, patience=1) as second:
            frozen.send_signal(signal.SIGCONT)
            said, _ = frozen.communicate("go on\n")
            assert (said, frozen.returncode) == ("let go\n", 0)
            # The second's turn is still its own.
            stop = threading.Event()
            threading.Timer(3, stop.set).start()
            with pytest.raises(WorkerStopping):
                take(path, patience=1, stop=stop)
            second.communicate("go on\n")
    take(path, patience=3600)


@pytest.mark.integration
def test_many_take_turns(tmp_path: Path) -> None:
    inside, most, count = 0, 0, 0

    def work() -> None:
        nonlocal inside, most, count
        hold = UnleasedHold("one of many", stop=threading.Event(), poll_seconds=0.01)
        with only_one(tmp_path / "lock", hold, poll_seconds=0.01, patience=60):
            inside += 1
            most = max(most, inside)
            time.sleep(0.02)  # the work: long enough that two at once would meet
            inside -= 1
            count += 1

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    wait_until(lambda: count == 8, what="all eight turns", seconds=60)
    for thread in threads:
        thread.join()
    assert most == 1


@pytest.mark.integration
@pytest.mark.faults
def test_a_worker_that_froze_over_a_base_holds_no_job_up(tmp_path: Path) -> None:
    world = World(tmp_path, lease_seconds=2)
    bases, name = world.settings.bases, f"tiny-{world.context.catalog.models[0].fingerprint[:12]}"
    left = bases / f".{name}.0123abcd.partial"
    left.mkdir(parents=True)
    with holder(bases / f".{name}.lock", patience=2) as frozen:
        frozen.send_signal(signal.SIGSTOP)
        job_id = world.job()
        world.run(job_id)
        assert world.row(job_id).state == JobState.SUCCEEDED
    assert (bases / name / "config.json").is_file()
    assert not left.exists()
    world.close()


@pytest.mark.integration
def test_a_base_that_another_worker_has_put_there_meanwhile_is_taken(tmp_path: Path) -> None:
    world = World(tmp_path)
    name = f"tiny-{world.context.catalog.models[0].fingerprint[:12]}"
    twice = (
        "import json, shutil, sys; source = json.load(open(sys.argv[1]))['path']; "
        f"[shutil.copytree(source, to) for to in (sys.argv[2], {str(world.settings.bases / name)!r})]"
    )
    hold = UnleasedHold("woken", stop=threading.Event(), poll_seconds=0.05)
    command = (sys.executable, "-c", twice)
    _, folder = prepared_base(world.context, PROJECT, hold, "tiny", workdir=tmp_path, command=command)
    assert folder == world.settings.bases / name
    assert [path.name for path in folder.iterdir()] == ["config.json"]
    assert not list(world.settings.bases.glob("*.partial"))
    world.close()
