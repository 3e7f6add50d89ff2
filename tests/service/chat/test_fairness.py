"""A greedy project's flood of chats, with a real engine: the others are answered in their turn, and bounds hold."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.context import Context
from service.engine.local import LocalEngine
from tests.service.chat.conftest import ChatWorld, make_local_engine, running_chat, warm_up

pytestmark = pytest.mark.integration

BODY: dict[str, Any] = {"model": "tiny", "messages": [{"role": "user", "content": "你好"}], "temperature": 0}
ENDLESS = {"logit_bias": {"50": 100}}
GREEDY: dict[str, Any] = BODY | ENDLESS | {"n": 16, "max_tokens": 8192}
WAITING = 6
PER_PROJECT = 3


@dataclass
class Fair:
    """The world of chats with its engine."""

    chat: ChatWorld
    engine: LocalEngine


@pytest.fixture(scope="module")
def fair(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Generator[Fair]:
    folder = tmp_path_factory.mktemp("fair")
    engines: list[LocalEngine] = []

    def backend(context: Context) -> LocalEngine:
        engines.append(make_local_engine(context, folder, threading.Event()))
        return engines[0]

    settings = {"engine_turn_seconds": 0.05, "engine_answer_seconds": 3.0, "open_chats_per_project": 50}
    waiting = {"engine_waiting": WAITING, "engine_waiting_per_project": PER_PROJECT}
    with running_chat(folder, tiny_base, backend, **settings, **waiting) as world:
        warm_up(world)
        yield Fair(world, engines[0])


@asynccontextmanager
async def open_client(fair: Fair, project: str) -> AsyncGenerator[httpx.AsyncClient]:
    headers = {"Authorization": f"Bearer {fair.chat.api.key(project)}"}
    async with httpx.AsyncClient(base_url=fair.chat.api.url, headers=headers, timeout=300) as client:
        yield client


def send(client: httpx.AsyncClient, body: dict[str, Any]) -> asyncio.Task[httpx.Response]:
    return asyncio.create_task(client.post("/chat/completions", json=body))


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(120):
        while not condition():
            await asyncio.sleep(0.01)


async def hang_up(tasks: list[asyncio.Task[httpx.Response]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def test_a_quiet_project_is_answered_while_another_floods_the_engine(fair: Fair) -> None:
    """Six times of six, with the same text as ever, while the flood still waits; that is told to come back."""
    asked = BODY | {"max_tokens": 16, "n": 2, "temperature": 1.0, "seed": 7}

    async def story() -> None:
        async with open_client(fair, "greedy") as greedy, open_client(fair, "安静") as quiet:
            alone = (await send(quiet, asked)).json()["choices"]
            flood = [send(greedy, GREEDY) for _ in range(40)]
            await until(lambda: sum(task.done() for task in flood) >= 40 - PER_PROJECT - 1)
            answers = [await send(quiet, asked) for _ in range(6)]
            refused = [task.result() for task in flood if task.done() and task.result().status_code != 200]
            assert fair.engine.count_waiting() > 0
            await hang_up(flood)
        assert [answer.status_code for answer in answers] == [200] * 6
        assert all(answer.json()["choices"] == alone for answer in answers)
        assert {answer.status_code for answer in refused} == {429}
        error = refused[0].json()["error"]
        assert (error["code"], refused[0].headers["retry-after"]) == ("engine_overloaded", "2")
        assert f"{PER_PROJECT} conversations of this project" in error["message"]

    asyncio.run(story())


def test_the_time_of_an_answer_is_bounded_and_every_choice_ends(fair: Fair) -> None:
    with fair.chat.client("patient") as client:
        answer = client.post("/chat/completions", json=GREEDY, timeout=200)
    assert answer.status_code == 200, answer.text
    choices = answer.json()["choices"]
    assert [choice["index"] for choice in choices] == list(range(16))
    assert {choice["finish_reason"] for choice in choices} == {"length"}
    assert 1 <= answer.json()["usage"]["completion_tokens"] <= 16 * 512


@pytest.mark.parametrize("stream", [False, True])
def test_callers_who_hang_up_while_they_wait_leave_the_queue(fair: Fair, stream: bool) -> None:
    """The one that is answered, those that wait, and one that has paused for another project."""

    async def story() -> None:
        async with open_client(fair, "a") as first, open_client(fair, "b") as second:
            asked = [send(client, GREEDY | {"stream": stream}) for client in (first, second) for _ in range(2)]
            await until(lambda: fair.engine.count_waiting() == 3)
            await until(lambda: fair.engine._aside > 0)
            await hang_up(asked)
            await until(lambda: fair.engine.count_waiting() == fair.engine._inside == 0)
            assert (await send(first, BODY | {"max_tokens": 2})).status_code == 200

    asyncio.run(story())


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"n": 16, "max_tokens": 1 << 20}, "max_tokens"),
        ({"n": 2, "max_completion_tokens": 65537}, "max_completion_tokens"),
        ({"max_tokens": 1 << 20, "stream": True}, "max_tokens"),
        ({"max_tokens": 1 << 20, "model": "absent"}, "max_tokens"),
    ],
)
def test_more_tokens_than_a_request_may_draw_are_refused_before_any_work(
    fair: Fair, change: dict[str, Any], param: str
) -> None:
    """Even before the model is looked for. The sentence has the number that was asked for, and the bound."""
    body = BODY | change
    tokens = (body.get("max_completion_tokens") or body["max_tokens"]) * body.get("n", 1)
    with fair.chat.client() as client:
        refused = client.post("/chat/completions", json=body)
    assert refused.status_code == 400
    error = refused.json()["error"]
    assert error["param"] == param
    assert all(words in error["message"] for words in (str(tokens), "131072", "BURNISH_ENGINE_MOST_TOKENS"))


def test_a_limit_beyond_the_context_alone_is_not_an_error(fair: Fair) -> None:
    """The answer ends where the context is full, or the time is over."""
    with fair.chat.client() as client:
        answer = client.post("/chat/completions", json=BODY | ENDLESS | {"max_tokens": 100_000}, timeout=60)
    assert answer.status_code == 200
    assert answer.json()["choices"][0]["finish_reason"] == "length"
    assert answer.json()["usage"]["total_tokens"] <= 512
