"""How many chats a project has open in one API process is bounded, whole answers and streams alike."""

from __future__ import annotations

import threading
from collections.abc import AsyncGenerator, Generator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest

from service.chat.schemas import Chunk, ChunkChoice, Delta, Usage
from tests.fixtures.processes import wait_until
from tests.fixtures.service import RunningApi, make_context, run_api

BODY: dict[str, Any] = {"model": "tiny", "messages": [{"role": "user", "content": "你好"}]}


class Gated:
    """An engine that answers once its gate is open."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.asked = 0

    async def stream_answer(self, question: Any) -> AsyncGenerator[Chunk]:
        self.asked += 1
        assert question.project_id.startswith("proj")
        yield self._chunk(Delta(role="assistant", content=""))
        while not self.gate.is_set():
            await anyio.sleep(0.01)
        yield self._chunk(Delta(content="好的"))
        yield self._chunk(Delta(), "stop")
        usage = Usage(prompt_tokens=1, completion_tokens=1, total_tokens=2)
        yield Chunk(id="c", created=1, model="tiny", choices=[], usage=usage)

    def _chunk(self, delta: Delta, reason: Any = None) -> Chunk:
        choice = ChunkChoice(index=0, delta=delta, finish_reason=reason)
        return Chunk(id="c", created=1, model="tiny", choices=[choice])


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Gated:
    made = Gated()
    monkeypatch.setattr("service.chat.endpoints.open_engine", lambda _: made)
    return made


@pytest.fixture
def api(tmp_path: Path, engine: Gated) -> Generator[RunningApi]:
    with run_api(make_context(tmp_path, open_chats_per_project=2, open_chats=3)) as running:
        yield running


@pytest.mark.slow
@pytest.mark.parametrize("stream", [False, True])
def test_chats_beyond_the_bound_are_refused_before_they_reach_the_engine(
    api: RunningApi, engine: Gated, stream: bool
) -> None:
    def ask(client: httpx.Client) -> httpx.Response:
        return client.post("/chat/completions", json=BODY | {"stream": stream})

    with api.client("greedy") as greedy, api.client("安静") as quiet, api.client("third") as third:
        with ThreadPoolExecutor(4) as pool:
            held = [pool.submit(ask, greedy) for _ in range(2)]
            wait_until(lambda: engine.asked == 2, what="two open chats")
            refused = ask(greedy)
            assert (refused.status_code, refused.headers["retry-after"]) == (429, "5")
            assert refused.headers["x-should-retry"] == "true"
            assert refused.json()["error"]["code"] == "too_many_at_once"
            assert "2 chats of this project" in refused.json()["error"]["message"]
            held.append(pool.submit(ask, quiet))
            wait_until(lambda: engine.asked == 3, what="a third open chat")
            assert "3 chats in this process" in ask(third).json()["error"]["message"]
            engine.gate.set()
            answers = [future.result() for future in held]
        assert [answer.status_code for answer in answers] == [200] * 3
        assert all("好的" in answer.text for answer in answers)
        wait_until(lambda: ask(greedy).status_code == 200, what="a place for another chat")


@pytest.mark.slow
def test_a_caller_who_hangs_up_makes_room(api: RunningApi, engine: Gated) -> None:
    with api.client("greedy") as greedy:
        for _ in range(2):
            with greedy.stream("POST", "/chat/completions", json=BODY | {"stream": True}) as answer:
                next(answer.iter_lines())
        for _ in range(2):
            with pytest.raises(httpx.ReadTimeout):
                greedy.post("/chat/completions", json=BODY, timeout=0.3)

        def has_room() -> bool:
            with greedy.stream("POST", "/chat/completions", json=BODY | {"stream": True}) as answer:
                return answer.status_code == 200

        wait_until(has_room, what="a place for another chat")
