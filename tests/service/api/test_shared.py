from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import anyio
import httpx
import pytest

from service.api.shared import SharedResult
from service.kit.errors import Unavailable
from tests.fixtures.service import RunningApi


def test_callers_that_come_together_share_one_result() -> None:
    calls: list[int] = []
    gate = threading.Event()

    def work() -> int:
        calls.append(1)
        gate.wait(10)
        return len(calls)

    async def run() -> list[int]:
        shared, got = SharedResult(work, 1000.0), list[int]()

        async def ask() -> None:
            got.append(await shared.get())

        async with anyio.create_task_group() as group:
            for _ in range(50):
                group.start_soon(ask)
            leaving = anyio.CancelScope()

            async def leave() -> None:
                with leaving:
                    await shared.get()

            group.start_soon(leave)
            await anyio.sleep(0.05)
            leaving.cancel()  # one that does not wait takes nothing from the others
            gate.set()
        return [*got, await shared.get()]

    assert anyio.run(run) == [1] * 51


def test_a_result_grows_old_and_an_error_is_shared_as_well() -> None:
    calls: list[int] = []

    def work() -> None:
        calls.append(1)
        raise Unavailable("It is away.")

    async def run() -> None:
        old, good = SharedResult(work, 0.0), SharedResult(work, 1000.0)
        for shared in (old, good):
            for _ in range(3):
                with pytest.raises(Unavailable):
                    await shared.get()

    anyio.run(run)
    assert len(calls) == 3 + 1


def test_readiness_is_found_out_once_for_many(api: RunningApi, monkeypatch: pytest.MonkeyPatch) -> None:
    probes: list[int] = []
    monkeypatch.setattr(type(api.context.storage), "check", lambda _: probes.append(1))
    address = f"{api.url.removesuffix('/v1')}/readyz"
    with ThreadPoolExecutor(8) as pool, httpx.Client() as client:
        assert {answer.status_code for answer in pool.map(lambda _: client.get(address), range(100))} == {200}
    assert len(probes) <= 20
