"""A greedy project's flood of chats, with a real engine: the others are answered in their turn, and bounds hold."""

from __future__ import annotations

import threading
from collections.abc import Generator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.context import Context
from service.engine.local import LocalEngine
from service.engine.speaker import Speaker
from service.engine.weights import Weights
from tests.fixtures.processes import wait_until
from tests.service.chat.conftest import ChatWorld, running_chat

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
        weights, speaker = Weights(context, threading.Event()), Speaker(context.settings, folder=folder / "engine")
        engines.append(LocalEngine(context.settings, weights, speaker))
        return engines[0]

    settings = {"engine_turn_seconds": 0.05, "engine_answer_seconds": 2.0, "open_chats_per_project": 50}
    waiting = {"engine_waiting": WAITING, "engine_waiting_per_project": PER_PROJECT}
    with running_chat(folder, tiny_base, backend, **settings, **waiting) as world:
        with world.client() as client:
            warm = client.post("/chat/completions", json=BODY | {"max_tokens": 1}, timeout=300)
            assert warm.status_code == 200, warm.text
        yield Fair(world, engines[0])


@contextmanager
def flood(world: ChatWorld, requests: int, seen: list[httpx.Response] | None = None) -> Generator[None]:
    """Send so many greedy requests at once, again and again until the block ends."""
    over = threading.Event()

    def send(client: httpx.Client) -> None:
        while not over.is_set():
            with suppress(httpx.TransportError):
                answer = client.post("/chat/completions", json=GREEDY, timeout=60)
                if seen is not None:
                    seen.append(answer)
            over.wait(0.3)

    with ExitStack() as stack, ThreadPoolExecutor(requests) as pool:
        key = world.api.key("greedy")
        for _ in range(requests):
            client = httpx.Client(base_url=world.api.url, headers={"Authorization": f"Bearer {key}"})
            stack.callback(client.close)
            pool.submit(send, client)
        try:
            yield
        finally:
            over.set()


def test_a_quiet_project_is_answered_while_another_floods_the_engine(fair: Fair) -> None:
    """Six times of six, with the same text as ever; the flood is told to come back."""
    asked = BODY | {"max_tokens": 40, "n": 2, "temperature": 1.0, "seed": 7}
    with fair.chat.client("安静") as quiet:
        alone = quiet.post("/chat/completions", json=asked, timeout=60).json()["choices"]
        seen: list[httpx.Response] = []
        with flood(fair.chat, 40, seen):
            wait_until(lambda: fair.engine.count_waiting() >= PER_PROJECT, what="a full queue of the project")
            answers = [quiet.post("/chat/completions", json=asked, timeout=60) for _ in range(6)]
    assert [answer.status_code for answer in answers] == [200] * 6
    assert all(answer.json()["choices"] == alone for answer in answers)
    assert {answer.status_code for answer in seen} == {200, 429}
    busy = next(answer for answer in seen if answer.status_code == 429)
    assert (busy.json()["error"]["code"], busy.headers["retry-after"]) == ("engine_overloaded", "2")
    assert f"{PER_PROJECT} conversations of this project" in busy.json()["error"]["message"]


def test_the_time_of_an_answer_is_bounded_and_every_choice_ends(fair: Fair) -> None:
    with fair.chat.client("patient") as client:
        answer = client.post("/chat/completions", json=GREEDY, timeout=60)
    assert answer.status_code == 200, answer.text
    choices = answer.json()["choices"]
    assert [choice["index"] for choice in choices] == list(range(16))
    assert {choice["finish_reason"] for choice in choices} == {"length"}
    assert 1 <= answer.json()["usage"]["completion_tokens"] <= 16 * 512


@pytest.mark.parametrize("stream", [False, True])
def test_callers_who_hang_up_while_they_wait_leave_the_queue(fair: Fair, stream: bool) -> None:
    """The one that is answered, those that wait, and one that has paused for another project."""
    with ExitStack() as stack:
        pool = stack.enter_context(ThreadPoolExecutor(8))
        clients = [stack.enter_context(fair.chat.client(name)) for name in ("a", "b", "c") for _ in range(2)]

        def hang_up(client: httpx.Client) -> None:
            with (
                suppress(httpx.ReadTimeout),
                client.stream("POST", "/chat/completions", json=GREEDY | {"stream": stream}, timeout=0.7) as answer,
            ):
                for _ in zip(answer.iter_lines(), range(40), strict=False):
                    pass

        gone: list[Future[None]] = [pool.submit(hang_up, client) for client in clients]
        wait_until(lambda: fair.engine.count_waiting() > 0, what="conversations that wait")
        for future in gone:
            future.result()
        wait_until(lambda: fair.engine.count_waiting() == 0, what="an empty queue")
        wait_until(lambda: fair.engine._inside == 0, what="an engine that answers nobody")
        answer = clients[0].post("/chat/completions", json=BODY | {"max_tokens": 2}, timeout=60)
        assert answer.status_code == 200


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


def test_a_limit_beyond_the_context_alone_is_no_error(fair: Fair) -> None:
    """The answer ends where the context is full, or the time is over."""
    with fair.chat.client() as client:
        answer = client.post("/chat/completions", json=BODY | ENDLESS | {"max_tokens": 100_000}, timeout=60)
    assert answer.status_code == 200
    assert answer.json()["choices"][0]["finish_reason"] == "length"
    assert answer.json()["usage"]["total_tokens"] <= 512
