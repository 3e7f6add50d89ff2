"""Places are taken in turns by project, within its cap, and a project's queue is bounded."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from service.kit import fair_turns
from service.kit.fair_turns import FairTurns, TurnsExhausted


def run(scene: Callable[[], Awaitable[None]]) -> None:
    """Run a scene in an event loop of its own."""
    asyncio.run(asyncio.wait_for(_awaited(scene), 20))


async def _awaited(scene: Callable[[], Awaitable[None]]) -> None:
    await scene()


async def _hold(turns: FairTurns, project: str) -> None:
    async with turns.hold_turn(project):
        await asyncio.Event().wait()


async def _let_all_run() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


def test_a_project_with_many_requests_keeps_another_waiting_for_one_turn_only() -> None:
    """The other's request is served after the one that is at work, before the forty that waited longer."""

    async def scene() -> None:
        turns, served = FairTurns(1, noun="requests"), list[str]()

        async def request(project: str) -> None:
            async with turns.hold_turn(project):
                served.append(project)
                await _let_all_run()

        greedy = [asyncio.create_task(request("greedy")) for _ in range(40)]
        await asyncio.sleep(0)
        await asyncio.gather(asyncio.create_task(request("安静")), *greedy)
        assert served.index("安静") == 1
        assert len(served) == 41

    run(scene)


def test_no_project_holds_more_than_its_cap() -> None:
    """Free places stay free for others."""

    async def scene() -> None:
        turns, most = FairTurns(8, noun="requests", per_project=3), 0

        async def request() -> None:
            nonlocal most
            async with turns.hold_turn("a"):
                most = max(most, turns.count_held("a"))
                await asyncio.sleep(0)

        await asyncio.gather(*(request() for _ in range(20)))
        assert most == 3

    run(scene)


def test_a_project_that_is_not_alone_holds_a_third_of_the_places(monkeypatch: pytest.MonkeyPatch) -> None:
    """A flood has all places until another project asks; after a while without others it has them again."""
    monkeypatch.setattr(fair_turns, "_ALONE_SECONDS", 0.05)

    async def scene() -> None:
        turns, held = FairTurns(9, noun="requests"), list[int]()

        async def request() -> None:
            async with turns.hold_turn("flood"):
                held.append(turns.count_held("flood"))
                await asyncio.sleep(0)

        async def flood() -> int:
            held.clear()
            await asyncio.gather(*(request() for _ in range(40)))
            return max(held)

        assert await flood() == 9
        async with turns.hold_turn("安静"):
            assert await flood() == 3
        await asyncio.sleep(0.1)
        assert await flood() == 9

    run(scene)


def test_one_request_beyond_the_queue_is_refused_before_it_waits() -> None:
    """The refusal names the bound and when to come again; another project still has its queue."""

    async def scene() -> None:
        turns = FairTurns(1, noun="gradings", waiting_per_project=2)
        async with turns.hold_turn("a"):
            waiting = [asyncio.create_task(_hold(turns, "a")) for _ in range(2)]
            await _let_all_run()
            with pytest.raises(TurnsExhausted, match="2 gradings of this project") as refused:
                await _hold(turns, "a")
            assert (refused.value.status, refused.value.headers["retry-after"]) == (429, "2")
            other = asyncio.create_task(_hold(turns, "b"))
            await _let_all_run()
            assert turns.count_waiting("b") == 1
            for task in (*waiting, other):
                task.cancel()
            await _let_all_run()
            assert turns.count_waiting() == 0
        assert turns.count_held() == 0

    run(scene)


def test_a_request_cancelled_at_any_moment_loses_no_place() -> None:
    """Cancelled while it waits, or between being given its place and running, it gives the place to the next."""

    async def scene() -> None:
        turns = FairTurns(1, noun="requests")
        holder = turns.hold_turn("a")
        await holder.__aenter__()
        first = asyncio.create_task(_hold(turns, "b"))
        second = asyncio.create_task(_hold(turns, "c"))
        await _let_all_run()
        await holder.__aexit__(None, None, None)  # gives the place to `first`, which has not run yet
        first.cancel()
        await _let_all_run()
        assert turns.count_held("c") == turns.count_held() == 1
        second.cancel()
        await _let_all_run()
        assert turns.count_held() == 0

    run(scene)


def test_one_project_never_fills_the_waiting_places_of_all() -> None:
    """Whatever a project may have waiting by itself, one place is left; beyond the total everybody is refused."""

    async def scene() -> None:
        turns = FairTurns(1, noun="conversations", waiting_per_project=64, waiting=3)
        tasks = [asyncio.create_task(_hold(turns, "greedy")) for _ in range(3)]
        await _let_all_run()
        with pytest.raises(TurnsExhausted, match="2 conversations of this project"):
            await _hold(turns, "greedy")
        tasks.append(asyncio.create_task(_hold(turns, "安静")))
        await _let_all_run()
        assert turns.count_waiting("安静") == 1
        with pytest.raises(TurnsExhausted, match="3 conversations of all projects"):
            await _hold(turns, "third")
        for task in tasks:
            task.cancel()
        await _let_all_run()
        assert turns.count_held() == turns.count_waiting() == 0

    run(scene)


def test_long_work_lets_others_go_and_is_the_first_of_its_project_afterwards() -> None:
    """Nobody waits: it keeps its place. Somebody does: they alternate, and the project's later requests come last."""

    async def scene() -> None:
        turns, order = FairTurns(1, noun="conversations"), list[str]()

        async def work(project: str, name: str) -> None:
            async with turns.hold_turn(project) as turn:
                for _ in range(2):
                    order.append(name)
                    await _let_all_run()
                    await turn.let_others_go()

        jobs = [("a", "a1"), ("a", "a2"), ("b", "b1")]
        await asyncio.gather(*(asyncio.create_task(work(*job)) for job in jobs))
        assert order == ["a1", "b1", "a1", "b1", "a2", "a2"]
        assert turns.count_held() == turns.count_waiting() == 0

    run(scene)


def test_work_that_is_cancelled_while_others_go_first_gives_no_place_back_twice() -> None:
    """Neither while it waits nor in the moment in which it is given its place again."""

    async def scene() -> None:
        turns = FairTurns(1, noun="conversations")

        async def long() -> None:
            async with turns.hold_turn("a") as turn:
                await asyncio.sleep(0)
                await turn.let_others_go()
                await asyncio.Event().wait()

        for last_moment in (False, True):
            task, other = asyncio.create_task(long()), asyncio.create_task(_hold(turns, "b"))
            await _let_all_run()
            assert (turns.count_held("b"), turns.count_waiting("a")) == (1, 1)
            if last_moment:
                other.cancel()
                while not turns.count_held("a"):
                    await asyncio.sleep(0)
            task.cancel()
            await _let_all_run()
            other.cancel()
            await _let_all_run()
            assert turns.count_held() == turns.count_waiting() == 0
            async with asyncio.timeout(5), turns.hold_turn("c"):
                pass

    run(scene)
