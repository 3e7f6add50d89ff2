"""The processes that grade for the API: what they may, how they end, and that others are started in their place."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from service.graders.grading_children import GradingChildren
from tests.fixtures.processes import wait_until
from tests.trainer.graders.scenes import check
from trainer.graders import Failure

pytestmark = pytest.mark.integration

BODY = json.dumps({"grader": check(), "model_sample": "巴黎", "item": {"answer": "巴黎"}}, ensure_ascii=False).encode()
ENDLESS: dict[str, Any] = {
    "type": "multi",
    "name": "m",
    "graders": {
        f"g{number}": {
            "type": "text_similarity",
            "name": "s",
            "input": "{{sample.output_text}}",
            "reference": "{{item.answer}}",
            "evaluation_metric": "bleu",
        }
        for number in range(16)
    },
    "calculate_output": "g1",
}
LONG = json.dumps({"grader": ENDLESS, "model_sample": "字词" * 10_000, "item": {"answer": "词字" * 10_000}}).encode()
"""A second of work, or more."""


def run(scene: Callable[[GradingChildren], Awaitable[None]], **options: Any) -> None:
    """Run a scene with children in an event loop of its own."""

    async def awaited() -> None:
        children = GradingChildren(**options)
        try:
            await asyncio.wait_for(scene(children), 120)
        finally:
            await children.close()
        for pid in children.started:
            wait_until(lambda pid=pid: not Path(f"/proc/{pid}").exists(), what="a child's end", seconds=20)

    asyncio.run(awaited())


async def reward(children: GradingChildren, project: str = "p") -> float | None:
    outcome = await children.grade_body(project, BODY, {})
    return outcome.grade and outcome.grade.reward


async def at_work(pid: int) -> None:
    """Wait until a process has used more of a processor than its start took."""
    began = _ticks(pid)
    while _ticks(pid) < began + 10:
        await asyncio.sleep(0.02)


def _ticks(pid: int) -> int:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def test_one_child_grades_again_and_again() -> None:
    async def scene(children: GradingChildren) -> None:
        assert [await reward(children) for _ in range(3)] == [1.0] * 3
        assert len(children.started) == 1

    run(scene)


def test_a_child_has_no_secret_and_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BURNISH_SECRET_KEY", "s" * 32)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "t" * 32)

    async def scene(children: GradingChildren) -> None:
        await reward(children)
        place = Path(f"/proc/{children.started[0]}")
        names = {entry.partition("=")[0] for entry in (place / "environ").read_text().split("\0") if entry}
        assert not {name for name in names if name.startswith(("BURNISH", "AWS"))}
        limits = {line[:25].strip(): line[26:].split() for line in (place / "limits").read_text().splitlines()}
        assert limits["Max address space"][0] == str(1 << 30)
        assert int(limits["Max cpu time"][0]) <= 30
        assert limits["Max core file size"][0] == "0"

    run(scene)


def test_a_caller_who_hangs_up_ends_the_work() -> None:
    async def scene(children: GradingChildren) -> None:
        await reward(children)
        (pid,) = children.started
        task = asyncio.create_task(children.grade_body("p", LONG, {}))
        await at_work(pid)
        task.cancel()
        await asyncio.wait({task})
        assert task.cancelled()
        assert not Path(f"/proc/{pid}").exists()
        assert await reward(children) == 1.0
        assert len(children.started) == 2

    run(scene, children=1)


@pytest.mark.parametrize(
    ("number", "flag"), [(signal.SIGKILL, "other_error"), (signal.SIGXCPU, "unresponsive_reward_error")]
)
def test_a_child_that_is_killed_fails_that_grading_alone(number: signal.Signals, flag: str) -> None:
    async def scene(children: GradingChildren) -> None:
        await reward(children)
        (pid,) = children.started
        task = asyncio.create_task(children.grade_body("p", LONG, {}))
        await at_work(pid)
        os.kill(pid, number)
        with pytest.raises(Failure) as raised:
            await task
        assert raised.value.flag == flag
        assert await reward(children) == 1.0

    run(scene, children=1)


def test_a_child_that_died_in_its_sleep_is_replaced() -> None:
    async def scene(children: GradingChildren) -> None:
        await reward(children)
        os.kill(children.started[0], signal.SIGKILL)
        await asyncio.sleep(0.5)
        assert await reward(children) == 1.0
        assert len(children.started) == 2

    run(scene)


def test_a_grading_that_takes_too_long_is_ended() -> None:
    async def scene(children: GradingChildren) -> None:
        await reward(children)
        children._wall_seconds = 0.2  # pyright: ignore[reportPrivateUsage]
        with pytest.raises(Failure) as raised:
            await children.grade_body("p", LONG, {})
        assert raised.value.flag == "unresponsive_reward_error"

    run(scene)


def test_a_child_is_left_for_others_while_one_project_floods() -> None:
    async def scene(children: GradingChildren) -> None:
        await reward(children)
        flood = [asyncio.create_task(children.grade_body("hostile", LONG, {})) for _ in range(20)]
        await asyncio.sleep(0.1)
        assert [await reward(children, "安静") for _ in range(3)] == [1.0] * 3
        assert sum(task.done() for task in flood) < 18
        for task in flood:
            task.cancel()
        await asyncio.wait(flood)

    run(scene)
