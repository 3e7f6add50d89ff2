from __future__ import annotations

from collections.abc import Callable

import pytest

import burnish
from burnish import APIResponseError, APIStatusError, BadRequestError, Problem
from tests.clients.scripted import KEY, Answer, Driver, Server, a_page, refusal


@pytest.mark.slow
@pytest.mark.parametrize(
    ("status", "name"),
    [
        (400, "BadRequestError"),
        (401, "AuthenticationError"),
        (403, "PermissionDeniedError"),
        (404, "NotFoundError"),
        (409, "ConflictError"),
        (413, "BadRequestError"),
        (418, "APIStatusError"),
        (422, "BadRequestError"),
        (429, "RateLimitError"),
        (500, "InternalServerError"),
        (507, "InternalServerError"),
    ],
)
def test_each_status_has_its_class(make: Callable[..., Driver], server: Server, status: int, name: str) -> None:
    server.on("GET", "/v1/models/m", refusal(status, "模型不存在", param="model", code="why"))
    with pytest.raises(APIStatusError) as caught:
        make(max_retries=0).call("models.retrieve", "m")
    error = caught.value
    assert type(error) is getattr(burnish, name)
    assert (error.status_code, error.request_id, str(error)) == (status, "req_7", "模型不存在")
    assert (error.param, error.code, error.type) == ("model", "why", "invalid_request_error")


def test_problems_of_a_dataset_are_carried(driver: Driver, server: Server) -> None:
    problems = [{"line": 3, "reason": "not JSON"}, {"line": None, "reason": "empty"}, "?"]
    server.on("POST", "/v1/files", refusal(400, "bad rows", problems=problems))
    with pytest.raises(BadRequestError) as caught:
        driver.call("files.create", file=b"x")
    assert caught.value.problems == (Problem(3, "not JSON"), Problem(None, "empty"))


@pytest.mark.parametrize("body", [b"<html>502</html>", b'["a"]', b'{"error": "text"}', b"\xff", b""])
def test_a_refusal_without_an_error_object(make: Callable[..., Driver], server: Server, body: bytes) -> None:
    server.on("GET", "/v1/models", Answer([body], 502))
    with pytest.raises(APIStatusError, match=r"/v1/models answered 502 .* without an error object"):
        make(max_retries=0).call("models.list")


@pytest.mark.parametrize("body", [b"<html>hello</html>", b"{}", b'{"data": [{"object": "model"}]}', b"null"])
def test_a_good_answer_of_something_else(driver: Driver, server: Server, body: bytes) -> None:
    server.on("GET", "/v1/models", Answer(body))
    with pytest.raises(APIResponseError, match="answered something unexpected") as caught:
        driver.call("models.list")
    assert caught.value.request_id == "req_7"


def test_a_get_follows_a_redirect_and_a_post_does_not(driver: Driver, server: Server) -> None:
    moved = Answer(b"", 308, {"Location": server.url + "/elsewhere"})
    server.on("GET", "/v1/models", moved)
    server.on("GET", "/v1/elsewhere", Answer(a_page([])))
    assert driver.items("models.list") == []
    server.on("POST", "/v1/fine_tuning/jobs", moved)
    with pytest.raises(APIStatusError, match="use that address as base_url"):
        driver.call("jobs.create", model="tiny", training_file="file-1")


def test_the_key_is_sent_and_never_shown(driver: Driver, server: Server) -> None:
    server.on("GET", "/v1/models", Answer(a_page([])))
    driver.call("models.list")
    assert server.seen[0].headers["authorization"] == f"Bearer {KEY}"
    assert server.seen[0].headers["user-agent"].startswith("burnish-python/")
    assert KEY not in repr(driver.client)


@pytest.mark.parametrize("identifier", ["", ".", ".."])
def test_what_cannot_be_an_id_is_refused_before_sending(driver: Driver, server: Server, identifier: str) -> None:
    with pytest.raises(ValueError, match="is not an id"):
        driver.call("files.retrieve", identifier)
    assert server.seen == []


def test_an_id_stays_in_its_segment(driver: Driver, server: Server) -> None:
    with pytest.raises(burnish.NotFoundError):
        driver.call("models.retrieve", "ft:a:b/../files?x=1")
    assert server.seen[0].path == "/v1/models/ft:a:b%2F..%2Ffiles%3Fx%3D1"


def test_health_is_outside_v1(driver: Driver, server: Server) -> None:
    server.on("GET", "/healthz", Answer({"status": "ok"}))
    server.on("GET", "/readyz", Answer({"status": "ready"}))
    assert driver.call("healthz") == {"status": "ok"}
    assert driver.call("readyz") == {"status": "ready"}
