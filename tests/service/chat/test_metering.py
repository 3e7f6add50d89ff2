"""Tokens a minute: taken before an answer, settled after it, on a real Valkey."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest

from service.chat.endpoints import get_engine
from service.chat.errors import AnswerFailed, ChatUnavailable
from service.chat.schemas import Chunk, ChunkChoice, Delta, Usage
from tests.fixtures.databases import api_on, client_with, project_of
from tests.fixtures.service import RunningApi
from tests.fixtures.valkey import run_valkey

pytestmark = pytest.mark.integration
BODY: dict[str, Any] = {"model": "tiny", "messages": [{"role": "user", "content": "你好"}], "max_tokens": 100}


class Scripted:
    """An engine that says one word, and counts or breaks off as it is told."""

    usage: int | None = 30
    error: Exception | None = None

    async def stream_answer(self, _question: object) -> Any:
        if self.error is not None:
            raise self.error
        yield Chunk(id="c", created=1, model="tiny", choices=[ChunkChoice(index=0, delta=Delta(content="好"))])
        await anyio.sleep(0)
        if self.usage is None:
            raise AnswerFailed("It broke off.")
        yield Chunk(
            id="c", created=1, model="tiny", choices=[ChunkChoice(index=0, delta=Delta(), finish_reason="stop")]
        )
        count = Usage(prompt_tokens=10, completion_tokens=self.usage - 10, total_tokens=self.usage)
        yield Chunk(id="c", created=1, model="tiny", choices=[], usage=count)


@pytest.fixture
def engine() -> Scripted:
    return Scripted()


@pytest.fixture
def api(tmp_path: Path, engine: Scripted, monkeypatch: pytest.MonkeyPatch) -> Generator[RunningApi]:
    monkeypatch.setattr("service.chat.endpoints.open_engine", lambda _: engine)
    assert get_engine
    with (
        run_valkey() as valkey,
        api_on("sqlite", tmp_path, redis_url=valkey.url, rate_tokens_per_minute=200) as running,
    ):
        yield running


@pytest.fixture
def client(api: RunningApi) -> Iterator[httpx.Client]:
    with client_with(api, "desk") as made:
        yield made


def remaining(client: httpx.Client, api: RunningApi) -> int:
    taken = api.context.rates.take(f"{project_of(client)}:tokens", limit=200, cost=0)
    assert taken is not None
    return taken.remaining


@pytest.mark.parametrize("stream", [False, True])
def test_what_was_not_used_is_put_back(api: RunningApi, client: httpx.Client, engine: Scripted, stream: bool) -> None:
    answer = client.post("/chat/completions", json=BODY | {"stream": stream})
    assert answer.status_code == 200, answer.text
    assert answer.headers["x-ratelimit-limit-tokens"] == "200"
    assert 60 <= int(answer.headers["x-ratelimit-remaining-tokens"]) <= 100
    assert answer.headers["x-ratelimit-reset-tokens"].endswith("s")
    assert 170 <= remaining(client, api) <= 200
    assert client.post("/chat/completions", json=BODY).status_code == 200


def test_too_many_tokens_are_refused(api: RunningApi, client: httpx.Client, engine: Scripted) -> None:
    engine.usage = 190
    assert client.post("/chat/completions", json=BODY).status_code == 200
    refused = client.post("/chat/completions", json=BODY)
    assert (refused.status_code, refused.json()["error"]["type"]) == (429, "tokens")
    assert refused.json()["error"]["code"] == "rate_limit_exceeded"
    assert int(refused.headers["retry-after-ms"]) > 0
    never = client.post("/chat/completions", json=BODY | {"n": 3})
    assert (never.status_code, never.headers["x-should-retry"]) == (429, "false")
    assert "more than the 200" in never.json()["error"]["message"]


def test_a_refusal_costs_nothing_and_an_interruption_its_estimate(
    api: RunningApi, client: httpx.Client, engine: Scripted
) -> None:
    engine.error = ChatUnavailable("It is away.")
    for stream in (False, True):
        assert client.post("/chat/completions", json=BODY | {"stream": stream}).status_code == 503
    assert client.post("/chat/completions", json=BODY | {"model": "absent"}).status_code == 404
    assert remaining(client, api) == 200
    engine.error, engine.usage = None, None
    assert client.post("/chat/completions", json=BODY).status_code == 502
    assert remaining(client, api) < 120
