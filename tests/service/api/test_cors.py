"""Scripts of web pages may call the API if a setting names their origin, and read errors and request ids too."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from service.kit.settings import SettingsError, load_settings
from tests.fixtures.service import RunningApi, make_context, run_api, upload

PAGE, OTHER = "https://app.example.com", "https://evil.example.com"


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningApi]:
    folder = tmp_path_factory.mktemp("cors")
    with run_api(make_context(folder, cors_origins=f"{PAGE}/, http://localhost:5173")) as running:
        yield running


def ask(client: httpx.Client, method: str, path: str, origin: str = PAGE, **headers: str) -> httpx.Response:
    return client.request(method, path, headers={"Origin": origin, **headers})


def test_a_page_may_ask_before_it_calls(live: RunningApi) -> None:
    with httpx.Client(base_url=live.url) as client:
        wishes = {"access-control-request-method": "POST", "access-control-request-headers": "authorization,x-a"}
        answer = ask(client, "OPTIONS", "/fine_tuning/jobs", **wishes)
        refused = ask(client, "OPTIONS", "/fine_tuning/jobs", OTHER, **wishes)
    assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (200, PAGE)
    assert "authorization" in answer.headers["access-control-allow-headers"]
    assert {"GET", "POST", "DELETE"} <= set(answer.headers["access-control-allow-methods"].split(", "))
    assert "access-control-allow-credentials" not in answer.headers
    assert refused.status_code == 400
    assert "access-control-allow-origin" not in refused.headers


def test_answers_and_errors_can_be_read_with_their_request_id(
    live: RunningApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    with live.client() as client, httpx.Client(base_url=live.url) as nobody:
        seen = {
            200: ask(client, "GET", "/models"),
            401: ask(nobody, "GET", "/models"),
            404: ask(client, "GET", "/files/none"),
            405: ask(client, "PATCH", "/models"),
        }
        monkeypatch.setattr("service.models.endpoints.service.list_models", lambda *_: 1 / 0)
        seen[500] = ask(client, "GET", "/models")
        foreign = ask(client, "GET", "/files/none", OTHER)
        assert upload(client).status_code == 200
    for status, answer in seen.items():
        assert answer.status_code == status
        assert answer.headers["access-control-allow-origin"] == PAGE, status
        assert answer.headers["x-request-id"], status
        assert "x-request-id" in answer.headers["access-control-expose-headers"].lower()
        assert "access-control-allow-credentials" not in answer.headers
        assert "origin" in answer.headers["vary"].lower()
    assert "access-control-allow-origin" not in foreign.headers


def test_without_the_setting_there_are_no_such_headers(tmp_path: Path) -> None:
    with run_api(make_context(tmp_path)) as running, running.client() as client:
        answer = ask(client, "GET", "/models")
    assert answer.status_code == 200
    assert not any(name.startswith("access-control") for name in answer.headers)


@pytest.mark.parametrize(
    ("text", "origins"),
    [
        ("", ()),
        ("*", ("*",)),
        (" https://A.example.com:443/ ,http://localhost:5173,", ("https://a.example.com", "http://localhost:5173")),
        ("http://[::1]:80", ("http://[::1]",)),
    ],
)
def test_origins_are_read_as_browsers_send_them(
    monkeypatch: pytest.MonkeyPatch, text: str, origins: tuple[str, ...]
) -> None:
    monkeypatch.setenv("BURNISH_CORS_ORIGINS", text)
    assert load_settings().origins == origins


@pytest.mark.parametrize(
    "text",
    [
        "app.example.com",
        "ftp://a.example",
        "https://a.example/path",
        "https://u@a.example",
        "https://",
        "a,*",
        "http://a:b",
    ],
)
def test_what_is_no_origin_is_refused_at_the_start(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("BURNISH_CORS_ORIGINS", text)
    with pytest.raises(SettingsError, match=r"BURNISH_CORS_ORIGINS: .* is not an origin: use scheme, host and port"):
        load_settings()
