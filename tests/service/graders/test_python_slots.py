"""Slots for Python graders: over all processes of a machine, by project, and free again however a process ends."""

from __future__ import annotations

import asyncio
import errno
import os
import subprocess
import sys
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from service.graders.errors import GradersBusy, PythonGradersBusy
from service.graders.grading import grade_answer
from service.graders.python_slots import PythonSlots
from service.graders.service import check_sources
from service.graders.turns import GradingTurns, PythonSlotsBusy, PythonTurns
from tests.fixtures.processes import wait_until
from tests.trainer.graders.scenes import jails_of
from trainer.graders import GRADER
from trainer.graders.sandbox import Leash, SandboxLimits, encode_call, run_python_call

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[3]
PROGRAM = """
import sys, time
from pathlib import Path
from service.graders.python_slots import PythonSlots
slots = PythonSlots(Path(sys.argv[1]), count=int(sys.argv[2]), per_project=int(sys.argv[3]))
held = slots.take_slot(sys.argv[4])
print("none" if held is None else "held", flush=True)
time.sleep(1000)
"""


@contextmanager
def other_process(folder: Path, *, count: int, per_project: int, project: str) -> Generator[subprocess.Popen[bytes]]:
    """Run a process that holds a slot for a project."""
    arguments = [str(folder), str(count), str(per_project), project]
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *arguments], cwd=ROOT, stdout=subprocess.PIPE, env=os.environ
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"held\n"
            yield process
        finally:
            process.kill()


def test_processes_share_the_slots_and_a_killed_one_frees_its_own(tmp_path: Path) -> None:
    slots = PythonSlots(tmp_path, count=1, per_project=1)
    with other_process(tmp_path, count=1, per_project=1, project="a") as process:
        assert slots.take_slot("b") is None
        process.kill()
        process.wait()
    held = slots.take_slot("b")
    assert held is not None
    assert slots.take_slot("c") is None
    os.close(held)
    assert slots.take_slot("c") is not None


def test_the_cap_of_a_project_counts_over_processes(tmp_path: Path) -> None:
    slots = PythonSlots(tmp_path, count=4, per_project=2)
    with other_process(tmp_path, count=4, per_project=2, project="项目") as process:
        first = slots.take_slot("项目")
        assert first is not None
        assert slots.take_slot("项目") is None
        assert [slots.take_slot("another") is not None for _ in range(3)] == [True, True, False]
        process.kill()
        process.wait()
    assert slots.take_slot("项目") is not None


def test_a_graders_own_process_does_not_keep_the_slot(tmp_path: Path) -> None:
    """A process that the holder started, and left running, has not inherited the lock."""
    slots = PythonSlots(tmp_path, count=1, per_project=1)
    held = slots.take_slot("a")
    assert held is not None
    with subprocess.Popen(["sleep", "1000"]) as child:
        os.close(held)
        assert slots.take_slot("b") is not None
        child.kill()


def test_a_folder_that_is_read_only_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make = Path.mkdir

    def mkdir(self: Path, *rest: object, **more: object) -> None:
        if self == tmp_path / "slots":
            raise OSError(errno.EROFS, "Read-only file system")
        make(self, *rest, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(Path, "mkdir", mkdir)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    assert PythonSlots(tmp_path / "slots", count=1, per_project=1).take_slot("a") is not None
    assert (tmp_path / f"burnish-python-slots-{os.geteuid()}" / "slot-0").read_text() == "a"


SLEEPS = "import time\ndef grade(sample, item):\n    time.sleep(1000)"


def call(source: str, limits: SandboxLimits, leash: Leash) -> float:
    return run_python_call(source, encode_call({"output_text": "答"}, {}), limits=limits, leash=leash)


def test_a_cancelled_grader_is_killed_and_its_slot_is_free(tmp_path: Path) -> None:
    async def scene() -> None:
        turns = PythonTurns(tmp_path, 1)
        deadline = asyncio.get_running_loop().time() + 60
        task = asyncio.create_task(turns.run_in_slot("a", deadline, partial(call, SLEEPS)))
        await asyncio.to_thread(wait_until, lambda: bool(jails_of(os.getpid())), what="the grader's process")
        with pytest.raises(PythonSlotsBusy):
            await turns.run_in_slot("b", asyncio.get_running_loop().time() + 0.1, partial(call, SLEEPS))
        task.cancel()
        await asyncio.wait({task})
        assert task.cancelled()
        assert not jails_of(os.getpid())
        assert await turns.run_in_slot("b", deadline, partial(call, "def grade(sample, item):\n    return 2")) == 2.0

    asyncio.run(asyncio.wait_for(scene(), 90))


def test_a_check_waits_for_a_slot_too_and_is_refused_in_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run is an answer with a flag then, as it is if the source itself took too long."""
    monkeypatch.setattr("service.graders.service.PYTHON_SECONDS", 0.2)
    monkeypatch.setattr("service.graders.grading.PYTHON_SECONDS", 0.2)
    grader = GRADER.validate_python({"type": "python", "name": "p", "source": SLEEPS})
    body = b'{"grader": %s, "model_sample": "x", "item": {}}' % grader.model_dump_json().encode()

    async def scene() -> None:
        turns = GradingTurns(None)
        turns.python = PythonTurns(tmp_path, 1)
        with other_process(tmp_path, count=1, per_project=1, project="other"):
            with pytest.raises(PythonGradersBusy, match="As many Python graders run as may"):
                await check_sources(grader, turns, "p")
            graded = await grade_answer(grader, body, ask=None, turns=turns, project_id="p")  # type: ignore[arg-type]
            assert graded.errors.unresponsive_reward_error
            assert not jails_of(os.getpid())
        await turns.children.close()

    asyncio.run(asyncio.wait_for(scene(), 90))


def test_requests_that_wait_are_bounded_by_project() -> None:
    async def scene() -> None:
        turns = GradingTurns(None, at_work=4, waiting=3)

        async def hold(project: str) -> None:
            async with turns.hold_request_turn(project):
                await asyncio.Event().wait()

        tasks = [asyncio.create_task(hold("a")) for _ in range(2 + 3)]
        await asyncio.sleep(0.05)
        with pytest.raises(GradersBusy, match="3 gradings of this project wait") as refused:
            await hold("a")
        assert (refused.value.status, refused.value.code) == (429, "graders_overloaded")
        assert refused.value.headers["Retry-After"] == "2"
        async with asyncio.timeout(5), turns.hold_request_turn("另一个"):
            pass
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)

    asyncio.run(scene())
