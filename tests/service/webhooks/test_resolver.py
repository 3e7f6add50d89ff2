"""Names that hang cost their own project alone, and a bounded number of threads."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Iterator, Sequence

import pytest

from service.kit.fair_turns import TurnsExhausted
from service.webhooks.resolver import LookupTimedOut, NameResolver


class Names:
    """A name service on which some names hang until they are let go."""

    def __init__(self) -> None:
        self.asked: Counter[str] = Counter()
        self.let_go = threading.Event()
        self.missing: set[str] = set()

    def __call__(self, host: str, _port: int) -> Sequence[str]:
        self.asked[host] += 1
        if host.startswith("hangs"):
            self.let_go.wait(30)
        if host in self.missing:
            raise OSError("没有这个名字")
        return ["127.0.0.1"]


@pytest.fixture
def names() -> Iterator[Names]:
    names = Names()
    yield names
    names.let_go.set()


def test_twenty_names_that_hang_hold_up_no_other_project(names: Names) -> None:
    async def run() -> None:
        resolver = NameResolver(names, seconds=20, places=8, per_project=2)
        hanging = [asyncio.create_task(resolver(f"hangs{number}", 80, "proj_a")) for number in range(20)]
        await asyncio.sleep(0)
        for project in ("proj_b", "proj_c"):
            assert await asyncio.wait_for(resolver("hooks.example", 80, project), 10) == ["127.0.0.1"]
        assert sum(names.asked[f"hangs{number}"] for number in range(20)) == 2
        names.let_go.set()
        assert await asyncio.gather(*hanging) == [["127.0.0.1"]] * 20

    asyncio.run(run())


def test_a_lookup_is_given_up_in_time_and_keeps_its_place_until_its_thread_ends(names: Names) -> None:
    async def run() -> None:
        resolver = NameResolver(names, seconds=0.1, per_project=1)
        with pytest.raises(LookupTimedOut, match=r"within 0\.1 s"):
            await resolver("hangs", 80, "proj_a")
        with pytest.raises(OSError, match="did not answer"):  # known by now, for every project, without a thread
            await resolver("hangs", 80, "proj_b")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(resolver("hooks.example", 80, "proj_a"), 0.1)
        assert names.asked == {"hangs": 1}
        names.let_go.set()
        assert await asyncio.wait_for(resolver("hooks.example", 80, "proj_a"), 10) == ["127.0.0.1"]
        assert await resolver("hangs", 80, "proj_a") == ["127.0.0.1"]  # its late answer was good

    asyncio.run(run())


def test_a_missing_name_is_not_looked_up_again_at_once(names: Names) -> None:
    names.missing.add("nowhere.example")

    async def run() -> None:
        resolver = NameResolver(names)
        for _ in range(5):
            with pytest.raises(OSError, match="没有这个名字"):
                await resolver("nowhere.example", 80, "proj_a")

    asyncio.run(run())
    assert names.asked == {"nowhere.example": 1}


def test_more_lookups_than_may_wait_are_refused(names: Names) -> None:
    async def run() -> None:
        resolver = NameResolver(names, seconds=20)
        tasks = [asyncio.create_task(resolver(f"hangs{number}", 80, "proj_a")) for number in range(200)]
        await asyncio.sleep(0.05)
        refused = [task for task in tasks if task.done() and isinstance(task.exception(), TurnsExhausted)]
        assert len(refused) == 200 - 2 - 128
        names.let_go.set()
        await asyncio.gather(*tasks, return_exceptions=True)

    asyncio.run(run())


def test_who_stops_waiting_leaves_the_line(names: Names) -> None:
    async def run() -> None:
        resolver = NameResolver(names, seconds=20, per_project=1)
        first = asyncio.create_task(resolver("hangs", 80, "proj_a"))
        second = asyncio.create_task(resolver("never.example", 80, "proj_a"))
        await asyncio.sleep(0.05)
        first.cancel()
        second.cancel()
        await asyncio.gather(first, second, return_exceptions=True)
        names.let_go.set()
        assert await asyncio.wait_for(resolver("hooks.example", 80, "proj_a"), 10) == ["127.0.0.1"]
        assert "never.example" not in names.asked

    asyncio.run(run())
