"""Rates: counted on a real Valkey, the same for all processes; without it every request passes."""

from __future__ import annotations

import logging
import re
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from sqlalchemy import func, select

from service.keys.service import Principal
from service.limits.errors import RateLimited
from service.limits.rates import RateBook, format_duration, settle_tokens, take_tokens
from service.queue.embedded import EmbeddedValkey
from service.queue.rates import RedisRates
from service.queue.rq import connect_redis
from service.tables.audit import AuditRow
from tests.fixtures.databases import client_with, project_of
from tests.fixtures.service import RunningApi, make_context, run_api, upload
from tests.fixtures.valkey import run_valkey

pytestmark = pytest.mark.integration
LIMITS = "/organization/projects/{}/limits"


@pytest.fixture(scope="module")
def valkey() -> Iterator[EmbeddedValkey]:
    with run_valkey() as server:
        yield server


@pytest.fixture(scope="module")
def api(valkey: EmbeddedValkey, tmp_path_factory: pytest.TempPathFactory) -> Generator[RunningApi]:
    folder = tmp_path_factory.mktemp("rates")
    with run_api(make_context(folder, redis_url=valkey.url, rate_requests_per_minute=30)) as running:
        yield running


@pytest.fixture
def client(api: RunningApi, request: pytest.FixtureRequest) -> Generator[httpx.Client]:
    with client_with(api, request.node.name[:64]) as made:
        yield made


def test_requests_are_counted_and_shown_in_headers(client: httpx.Client) -> None:
    first, second = client.get("/files"), client.get("/models")
    assert first.headers["x-ratelimit-limit-requests"] == "30"
    assert (first.headers["x-ratelimit-remaining-requests"], first.headers["x-ratelimit-reset-requests"]) == (
        "29",
        "2s",
    )
    assert second.headers["x-ratelimit-remaining-requests"] == "28"
    assert re.fullmatch(r"[234](\.\d+)?s", second.headers["x-ratelimit-reset-requests"])
    assert "x-ratelimit-limit-tokens" not in first.headers


def test_downloads_errors_and_streams_have_the_rate_headers_too(client: httpx.Client) -> None:
    file_id = upload(client).json()["id"]
    for answer in (client.get(f"/files/{file_id}/content"), client.get("/files/file-x"), client.post("/files")):
        assert answer.headers["x-ratelimit-limit-requests"] == "30"


def test_too_many_are_refused_and_let_through_later(api: RunningApi, client: httpx.Client) -> None:
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: client.get("/files"), range(40)))
    passed = [answer for answer in answers if answer.is_success]
    # The bucket fills meanwhile, by one in two seconds.
    assert 30 <= len(passed) <= 35
    refused = next(answer for answer in answers if not answer.is_success)
    assert refused.status_code == 429
    error = refused.json()["error"]
    assert (error["type"], error["code"]) == ("requests", "rate_limit_exceeded")
    assert error["message"].startswith("This project has reached its limit of 30 requests a minute. Try again in ")
    assert refused.headers["x-should-retry"] == "true"
    assert 0 < int(refused.headers["retry-after-ms"]) <= 2000
    assert refused.headers["retry-after"] in ("1", "2")
    assert refused.headers["x-ratelimit-remaining-requests"] == "0"
    with client_with(api, "not theirs") as other:
        assert other.get("/files").is_success, "each project has its own"


def test_a_refused_request_changes_and_writes_nothing(api: RunningApi, client: httpx.Client) -> None:
    while client.get("/files").is_success:
        pass
    assert client.post("/organization/projects", json={"name": "太多了"}).status_code == 429
    with api.context.db.read() as session:
        written = session.scalar(select(func.count()).select_from(AuditRow).where(AuditRow.status_code == 429))
    assert written == 0


def test_an_administrator_sets_a_rate(api: RunningApi, client: httpx.Client) -> None:
    path = LIMITS.format(project_of(client))
    client.post(path, json={"requests_per_minute": 600})
    assert client.get("/files").headers["x-ratelimit-limit-requests"] == "600"
    client.post(path, json={"requests_per_minute": None})
    assert "x-ratelimit-limit-requests" not in client.get("/files").headers
    client.post(path, json={"requests_per_minute": "default"})
    assert client.get("/files").headers["x-ratelimit-limit-requests"] == "30"


def test_several_processes_share_a_bucket(valkey: EmbeddedValkey) -> None:
    one, other = RedisRates(valkey.url), RedisRates(valkey.url)
    taken = [(one, other)[place % 2].take("shared", limit=5) for place in range(6)]
    assert [found is not None and found.allowed for found in taken] == [True] * 5 + [False]
    client: Any = connect_redis(valkey.url, retries=0)
    assert 0 < client.pttl("burnish:rate:shared") <= 61_000, "what is not used is forgotten"
    client.close()


def test_without_its_server_everything_passes_with_one_line_in_the_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    context = make_context(tmp_path, redis_url="redis://:geheim@127.0.0.1:1/0", rate_requests_per_minute=1)
    with run_api(context) as api, api.client() as client:
        answers = [client.get("/files") for _ in range(5)]
    assert [answer.status_code for answer in answers] == [200] * 5
    assert "x-ratelimit-limit-requests" not in answers[0].headers
    told = [record.getMessage() for record in caplog.records if "no rate limit holds" in record.getMessage()]
    assert len(told) == 1
    assert "127.0.0.1:1" in told[0]
    assert "geheim" not in told[0]


def test_it_holds_again_once_the_server_is_back(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("service.queue.rates._PAUSE", 0.0)
    caplog.set_level(logging.INFO)
    with run_valkey() as server:
        rates = RedisRates(server.url)
        assert rates.take("k", limit=2) is not None
        server.stop()
        assert [rates.take("k", limit=2) for _ in range(3)] == [None] * 3
        server.start()
        taken = rates.take("k", limit=2)
    assert taken is not None
    assert sum("no rate limit holds" in record.getMessage() for record in caplog.records) == 1
    assert sum("rate limits hold" in record.getMessage() for record in caplog.records) == 1


def test_tokens_are_taken_before_and_settled_after(api: RunningApi, client: httpx.Client) -> None:
    project = project_of(client)
    client.post(LIMITS.format(project), json={"tokens_per_minute": 1000})
    principal, book, context = Principal(project, "key_x"), RateBook(), api.context
    take_tokens(context, principal, book, 900)
    with pytest.raises(RateLimited) as caught:
        take_tokens(context, principal, book, 200)
    assert (caught.value.type, caught.value.retry) == ("tokens", True)
    assert 0 < int(caught.value.headers["retry-after-ms"]) <= 6000
    settle_tokens(context, principal, book, taken=900, used=100)
    take_tokens(context, principal, book, 700)
    settle_tokens(context, principal, book, taken=700, used=2000)
    with pytest.raises(RateLimited) as caught:
        take_tokens(context, principal, book, 1)
    assert int(caught.value.headers["retry-after"]) > 60, "what was used beyond must come back first"
    with pytest.raises(RateLimited, match="may use 1001 tokens, more than the 1000") as caught:
        take_tokens(context, principal, book, 1001)
    assert (caught.value.retry, caught.value.headers) == (False, {})


def test_a_book_looks_again_after_some_seconds(api: RunningApi, client: httpx.Client) -> None:
    now = 100.0
    book, project = RateBook(lambda: now), project_of(client)
    assert book.look_up_limits(api.context, project).requests_per_minute == 30
    client.post(LIMITS.format(project), json={"requests_per_minute": 7})
    assert book.look_up_limits(api.context, project).requests_per_minute == 30
    now += 5
    assert book.look_up_limits(api.context, project).requests_per_minute == 7


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0ms"), (0.012, "12ms"), (1, "1s"), (8.64, "8.64s"), (59.5, "59.5s"), (360, "6m0s"), (3661, "1h1m1s")],
)
def test_durations_are_written_as_openai_does(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


def test_the_official_client_waits_and_retries(api: RunningApi, client: httpx.Client) -> None:
    client.post(LIMITS.format(project_of(client)), json={"requests_per_minute": 60})
    token = client.headers["authorization"].removeprefix("Bearer ")
    while client.get("/files").is_success:
        pass
    with openai.OpenAI(base_url=api.url, api_key=token, max_retries=4) as official:
        assert list(official.files.list()) == []
        while client.get("/files").is_success:
            pass
        with pytest.raises(openai.RateLimitError, match="reached its limit of 60 requests a minute"):
            official.with_options(max_retries=0).files.list()
