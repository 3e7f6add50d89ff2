"""Clients that send no proper request, or none to its end: the server stays well and keeps nothing of them."""

from __future__ import annotations

import json
import re
import socket
import time
from collections.abc import Iterator
from urllib.parse import urlsplit

import httpx
import pytest

from service.api.protocol import BoundedHttp
from tests.fixtures.processes import wait_until
from tests.fixtures.service import GOOD_JSONL, RunningApi


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(BoundedHttp, "window", 2.0)


def connect(api: RunningApi) -> socket.socket:
    address = urlsplit(api.url)
    return socket.create_connection((address.hostname, address.port), timeout=30)


def answer_to(connection: socket.socket) -> bytes:
    """Return all that comes until the server ends the connection."""
    told = b""
    try:
        while chunk := connection.recv(1 << 16):
            told += chunk
    except ConnectionResetError:
        pass
    return told


def send_many(connection: socket.socket, more: bytes) -> None:
    for _ in range(100_000):
        connection.sendall(more)


def key_of(client: httpx.Client) -> bytes:
    return client.headers["authorization"].encode()


@pytest.mark.parametrize("endless", [b"GET /" + b"a" * 1000, b"GET /v1/files HTTP/1.1\r\nX: ", b"GET / HTTP/1.1\r\n"])
def test_a_head_without_an_end_is_not_kept(api: RunningApi, endless: bytes) -> None:
    more = b"a: b\r\n" * 200 if endless.endswith(b"\r\n") else b"a" * 1200
    with connect(api) as connection:
        connection.sendall(endless)
        with pytest.raises((ConnectionResetError, BrokenPipeError)):
            send_many(connection, more)
    assert httpx.get(f"{api.url.removesuffix('/v1')}/healthz").status_code == 200


def test_large_headers_that_end_are_taken(client: httpx.Client) -> None:
    assert client.get("/models", headers={"x-long": "a" * 32_000}).status_code == 200


@pytest.mark.parametrize("begun", [b"", b"GET /v1/files HTTP/1.1\r\nHost: x\r\n"])
def test_a_request_that_does_not_come_is_given_up(api: RunningApi, begun: bytes) -> None:
    with connect(api) as connection:
        connection.sendall(begun)
        assert answer_to(connection) == b""


def test_an_upload_that_stops_is_given_up_and_leaves_nothing(api: RunningApi, client: httpx.Client) -> None:
    blobs = api.context.settings.data / "blobs"
    with connect(api) as connection:
        connection.sendall(
            b"POST /v1/files HTTP/1.1\r\nHost: x\r\nAuthorization: "
            + key_of(client)
            + b"\r\nContent-Type: multipart/form-data; boundary=x\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        part = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.jsonl"\r\n\r\n' + GOOD_JSONL * 20
        connection.sendall(b"%x\r\n%s\r\n" % (len(part), part))
        wait_until(lambda: any((blobs / ".tmp").iterdir()), what="the upload's bytes", seconds=30)
        answer_to(connection)
    wait_until(lambda: not any((blobs / ".tmp").iterdir()), what="the bytes to be dropped", seconds=30)
    assert client.get("/files").json()["data"] == []


def test_a_slow_upload_and_a_slow_answer_are_no_silence(api: RunningApi, client: httpx.Client) -> None:
    """Three windows long, and more than the least in each."""
    rows = GOOD_JSONL * 10
    form = b'--x\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nfine-tune\r\n'
    form += b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.jsonl"\r\n\r\n'

    def slowly() -> Iterator[bytes]:
        yield form
        for _ in range(12):
            yield rows
            time.sleep(0.4)
        yield b"\r\n--x--\r\n"

    sent = client.post("/files", content=slowly(), headers={"Content-Type": "multipart/form-data; boundary=x"})
    assert sent.status_code == 200, sent.text
    job = client.post("/fine_tuning/jobs", json={"model": "tiny", "training_file": sent.json()["id"]}).json()["id"]
    with client.stream("GET", f"/fine_tuning/jobs/{job}/events", params={"stream": True}) as stream:
        lines = stream.iter_lines()
        assert next(lines)
        time.sleep(4)
        client.post(f"/fine_tuning/jobs/{job}/cancel")
        assert any("done" in line for line in lines)


def test_chunks_without_a_length_are_a_body(client: httpx.Client) -> None:
    announced = b'{"filename": "a.jsonl", "purpose": "fine-tune", "bytes": 10, "mime_type": "text/jsonl"}'
    sent = client.post(
        "/uploads", content=iter([announced[:9], announced[9:]]), headers={"Content-Type": "application/json"}
    )
    assert sent.status_code == 200
    large = client.post(
        "/uploads", content=(b" " * 1000 for _ in range(2000)), headers={"Content-Type": "application/json"}
    )
    assert large.status_code == 413


@pytest.mark.parametrize(
    "head",
    [
        b"Content-Length: 2\r\nContent-Length: 5\r\n",
        b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n",
        b"Content-Length: -1\r\n",
        b"Transfer-Encoding: chunked, identity\r\nContent-Length: 2\r\n",
        b"X-A: a\r\n b\r\n",
        b"X-A: a\0b\r\n",
    ],
)
def test_requests_that_two_servers_could_read_differently_are_refused(
    api: RunningApi, client: httpx.Client, head: bytes
) -> None:
    with connect(api) as connection:
        connection.sendall(
            b"POST /v1/uploads HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nAuthorization: "
            + key_of(client)
            + b"\r\n"
            + head
            + b"\r\n{}xxx"
        )
        head, _, body = answer_to(connection).partition(b"\r\n\r\n")
    status, *headers = head.decode().lower().split("\r\n")
    assert status.startswith("http/1.1 400 ")
    assert any(re.fullmatch("x-request-id: req_[0-9a-f]{32}", header) for header in headers)
    assert json.loads(body)["error"]["type"] == "invalid_request_error"
