from __future__ import annotations

import socket
import time
from collections.abc import Callable
from email.utils import formatdate
from typing import Any

import httpx
import pytest

from burnish import (
    APIConnectionError,
    APITimeoutError,
    BadRequestError,
    ConflictError,
    InternalServerError,
    RateLimitError,
)
from burnish._retry import RetryPolicy
from tests.clients.scripted import Answer, Driver, Server, a_job, a_page, refusal

JOBS = "/v1/fine_tuning/jobs"


@pytest.mark.slow
@pytest.mark.parametrize("status", [408, 409, 429, 500, 503])
def test_repeats_what_may_pass_with_one_idempotency_key(
    driver: Driver, server: Server, naps: list[float], status: int
) -> None:
    server.on("POST", JOBS, [refusal(status), refusal(status), Answer(a_job("queued"))])
    assert driver.call("jobs.create", model="tiny", training_file="file-1").status == "queued"
    driver.call("jobs.create", model="tiny", training_file="file-1")
    keys = [seen.headers["idempotency-key"] for seen in server.seen]
    assert keys[0] == keys[1] == keys[2] != keys[3]
    assert len(naps) == 2
    assert 0.375 <= naps[0] <= 0.5 < naps[1] <= 1.0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("call", "arguments", "path"),
    [
        ("projects.create", {"name": "客服"}, "/v1/organization/projects"),
        ("projects.create_key", {"project_id": "proj_1", "name": "k"}, "/v1/organization/projects/proj_1/api_keys"),
        (
            "webhooks.endpoints.create",
            {"name": "钩", "url": "https://example.com/", "event_types": ["fine_tuning.job.failed"]},
            "/v1/webhook_endpoints",
        ),
        ("webhooks.endpoints.rotate_secret", {"endpoint_id": "whe_1"}, "/v1/webhook_endpoints/whe_1/rotate_secret"),
        (
            "webhooks.endpoints.replay",
            {"endpoint_id": "whe_1", "event_ids": ["evt_1"]},
            "/v1/webhook_endpoints/whe_1/replay",
        ),
    ],
)
def test_whatever_makes_something_keeps_its_key_over_repeats(
    driver: Driver, server: Server, naps: list[float], call: str, arguments: dict[str, Any], path: str
) -> None:
    server.on("POST", path, [refusal(503), refusal(400)])
    with pytest.raises(BadRequestError):
        driver.call(call, **arguments)
    first, second = (seen.headers["idempotency-key"] for seen in server.seen)
    assert first == second
    assert len(naps) == 1


def test_gives_up_after_max_retries(make: Callable[..., Driver], server: Server, naps: list[float]) -> None:
    server.on("GET", "/v1/models", refusal(500, "broken"))
    with pytest.raises(InternalServerError, match="broken"):
        make(max_retries=3).call("models.list")
    assert len(server.seen) == 4


def test_a_server_can_forbid_and_ask_for_repeating(driver: Driver, server: Server, naps: list[float]) -> None:
    server.on("POST", JOBS, refusal(409, headers={"x-should-retry": "false"}))
    with pytest.raises(ConflictError):
        driver.call("jobs.create", model="tiny", training_file="file-1")
    assert len(server.seen) == 1
    server.on("GET", "/v1/models", [refusal(400, headers={"x-should-retry": "true"}), Answer(a_page([]))])
    assert driver.items("models.list") == []


def test_bad_input_is_sent_once(driver: Driver, server: Server) -> None:
    server.on("POST", JOBS, refusal(400))
    with pytest.raises(BadRequestError):
        driver.call("jobs.create", model="tiny", training_file="file-1")
    assert len(server.seen) == 1


def test_waits_as_long_as_the_server_says(driver: Driver, server: Server, naps: list[float]) -> None:
    answers = [refusal(429, headers={"retry-after": "7"}), refusal(429, headers={"retry-after-ms": "250"})]
    server.on("GET", "/v1/models", [*answers, Answer(a_page([]))])
    driver.call("models.list")
    assert naps == [7.0, 0.25]


def test_a_long_pause_is_left_to_the_caller(driver: Driver, server: Server, naps: list[float]) -> None:
    server.on("GET", "/v1/models", refusal(429, headers={"retry-after": "3600"}))
    with pytest.raises(RateLimitError):
        driver.call("models.list")
    assert (len(server.seen), naps) == (1, [])


def test_retry_after_may_be_a_date() -> None:
    answer = httpx.Response(503, headers={"retry-after": formatdate(time.time() + 30, usegmt=True)})
    delay = RetryPolicy(2).delay_before_retry(0, answer)
    assert delay is not None
    assert 20 < delay <= 30


@pytest.mark.parametrize("text", ["soon", "-5", "nan", "inf"])
def test_a_senseless_retry_after_is_ignored(text: str) -> None:
    delay = RetryPolicy(2).delay_before_retry(0, httpx.Response(503, headers={"retry-after": text}))
    assert delay is not None
    assert 0.375 <= delay <= 0.5


@pytest.mark.slow
def test_no_server_listens(make: Callable[..., Driver], naps: list[float]) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
        with pytest.raises(APIConnectionError, match=r"Cannot reach http://127\.0\.0\.1") as caught:
            make(base_url=url).call("models.list")
    assert len(naps) == 2
    assert caught.value.request_id is None


def test_an_answer_that_does_not_come(make: Callable[..., Driver], server: Server, naps: list[float]) -> None:
    def wait(_: object) -> Answer:
        server.released.wait(30)
        return Answer(a_page([]))

    server.on("GET", "/v1/models", wait)
    with pytest.raises(APITimeoutError, match="did not answer in time"):
        make(timeout=0.1).call("models.list")
    assert len(naps) == 2


def test_an_answer_cut_in_the_middle_is_requested_again(driver: Driver, server: Server, naps: list[float]) -> None:
    cut = Answer(b'{"object": "li', headers={"Content-Length": "500"}, cut=True)
    server.on("GET", "/v1/models", [cut, Answer(a_page([{"id": "tiny", "object": "model"}]))])
    assert [model.id for model in driver.items("models.list")] == ["tiny"]
    assert len(naps) == 1
