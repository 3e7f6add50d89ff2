"""Text and bodies that are made to hurt, on both databases: each answer is a sentence, none is a 500."""

from __future__ import annotations

import json
import logging
import socket
from collections.abc import Generator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from tests.fixtures.postgres import new_database
from tests.fixtures.processes import wait_until
from tests.fixtures.service import RunningApi, make_context, run_api, upload


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def either(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Generator[RunningApi]:
    folder: Path = tmp_path_factory.mktemp(request.param)
    if request.param == "sqlite":
        with run_api(make_context(folder)) as running:
            yield running
        return
    with (
        new_database() as url,
        run_api(make_context(folder, database_url=url, secret_key="k" * 32)) as running,
    ):
        yield running


@pytest.fixture
def client(either: RunningApi, request: pytest.FixtureRequest) -> Generator[httpx.Client]:
    with either.client(f"test-{request.node.name}"[:64]) as client:
        yield client


def send(client: httpx.Client, members: str = "", file_id: str = "file-x") -> httpx.Response:
    body = f'{{"model": "tiny", "training_file": "{file_id}"{members}}}'
    return client.post("/fine_tuning/jobs", content=body, headers={"Content-Type": "application/json"})


@pytest.mark.slow
@pytest.mark.parametrize(
    "path",
    [
        "/files/a%00b",
        "/files?after=%00",
        "/files?purpose=%00",
        "/models/%00",
        "/fine_tuning/jobs/%00/events",
        "/fine_tuning/jobs?metadata[a]=%00",
        "/fine_tuning/jobs?metadata[%00]=a",
    ],
)
def test_a_nul_in_the_url_is_refused(client: httpx.Client, path: str) -> None:
    answer = client.get(path)
    assert answer.status_code == 400
    assert "NUL" in answer.json()["error"]["message"]


_HYPER = "hyperparameters.lora.target_modules.0"


@pytest.mark.slow
@pytest.mark.parametrize("bad", ["\\u0000", "\\ud800"])
@pytest.mark.parametrize(
    ("members", "param"),
    [
        (', "metadata": {"a": "x?"}', "metadata.a"),
        (', "hyperparameters": {"lora": {"target_modules": ["x?"]}}', _HYPER),
        (', "method": {"type": "supervised", "supervised": {"x?": 1}}', "method.supervised"),
    ],
)
def test_text_that_no_database_takes_is_refused(client: httpx.Client, members: str, param: str, bad: str) -> None:
    answer = send(client, members.replace("?", bad), upload(client).json()["id"])
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == param
    assert client.get("/fine_tuning/jobs").json()["data"] == []


def test_a_block_of_another_type_is_refused(client: httpx.Client) -> None:
    answer = send(client, ', "method": {"type": "supervised", "supervised": []}', upload(client).json()["id"])
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "method.supervised"


@pytest.mark.slow
@pytest.mark.parametrize("key", ['a"b', "a.b", "a[0]", "a\\b", "'", "*", "团队", "a\nb", '"]', "$", "0"])
def test_metadata_is_found_by_any_key(client: httpx.Client, key: str) -> None:
    file_id = upload(client).json()["id"]
    metadata: dict[str, Any] = {"metadata": {key: "值\"'"}}
    wanted = send(client, f", {json.dumps(metadata)[1:-1]}", file_id).json()["id"]
    send(client, "", file_id)
    found = client.get("/fine_tuning/jobs", params={f"metadata[{key}]": "值\"'"})
    assert [job["id"] for job in found.json()["data"]] == [wanted]
    assert client.get("/fine_tuning/jobs", params={f"metadata[{key}]": "other"}).json()["data"] == []


@pytest.mark.parametrize("name", ["metadata[]", "metadata[" + "k" * 65 + "]", "metadata[a"])
def test_a_filter_that_is_none_is_refused(client: httpx.Client, name: str) -> None:
    answer = client.get("/fine_tuning/jobs", params={name: "x"})
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "metadata"


@pytest.mark.parametrize("body", [b'{"model": "\xff"}', b'{"model": ' + b"[" * 10_000, b'{"seed": ' + b"9" * 5000])
def test_a_body_that_breaks_the_parser_is_explained(client: httpx.Client, body: bytes) -> None:
    answer = client.post("/fine_tuning/jobs", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 400
    assert "cannot be read as JSON" in answer.json()["error"]["message"]


@pytest.mark.parametrize("kind", ["application/json", "multipart/form-data; boundary=x", "text/plain"])
def test_no_content_type_lifts_the_limit_of_a_body(client: httpx.Client, kind: str) -> None:
    answer = client.post("/fine_tuning/jobs", content=b" " * (2 << 20), headers={"Content-Type": kind})
    assert answer.status_code == 413
    assert answer.json()["error"]["code"] == "too_large"


@pytest.mark.parametrize("boundary", ["b" * 5000, '"b b\x7f"'])
def test_an_odd_boundary_is_not_our_error(client: httpx.Client, boundary: str) -> None:
    kind = f"multipart/form-data; boundary={boundary}"
    assert client.post("/files", content=b"--x--\r\n", headers={"Content-Type": kind}).status_code == 400


def test_bytes_that_are_gone_are_a_404(either: RunningApi, client: httpx.Client) -> None:
    file_id = upload(client).json()["id"]
    either.context.storage.delete(f"files/{file_id}")
    answer = client.get(f"/files/{file_id}/content")
    assert answer.status_code == 404
    assert "gone" in answer.json()["error"]["message"]


def test_an_interrupted_upload_is_not_an_error_and_leaves_nothing(
    either: RunningApi, client: httpx.Client, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    address = urlsplit(either.url)
    head = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.jsonl"\r\n\r\n{"a":'
    with socket.create_connection((address.hostname, address.port)) as connection:
        connection.sendall(
            f"POST /v1/files HTTP/1.1\r\nHost: x\r\nAuthorization: {client.headers['authorization']}\r\n"
            "Content-Type: multipart/form-data; boundary=x\r\nContent-Length: 9999\r\n\r\n".encode()
            + head
        )
        connection.shutdown(socket.SHUT_WR)
        connection.recv(1 << 16)
    wait_until(lambda: "by its client" in caplog.text, what="the log to tell of it", seconds=10)
    assert " failed" not in caplog.text
    assert client.get("/files").json()["data"] == []
    assert not any((either.context.settings.data / "blobs" / ".tmp").iterdir())
