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


@pytest.mark.slow
@pytest.mark.parametrize("begun", [b"", b"GET /v1/files HTTP/1.1\r\nHost: x\r\n"])
def test_a_request_that_does_not_come_is_given_up(api: RunningApi, begun: bytes) -> None:
    with connect(api) as connection:
        connection.sendall(begun)
        assert answer_to(connection) == b""


@pytest.mark.slow
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


@pytest.mark.slow
def test_a_slow_upload_and_a_slow_answer_are_not_cut_off(api: RunningApi, client: httpx.Client) -> None:
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


@pytest.mark.slow
@pytest.mark.parametrize(
    "head",
    [
        b"Content-Length: 2\r\nContent-Length: 5\r\n",
        b"Content-Length: 2\r\nContent-Length: 2\r\n",
        b"Content-Length: 2, 2\r\n",
        b"Content-Length: +2\r\n",
        b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n",
        b"Content-Length: -1\r\n",
        b"Transfer-Encoding: chunked, identity\r\nContent-Length: 2\r\n",
        b"Transfer-Encoding: gzip, chunked\r\n",
        b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        b"X-A: a\r\n b\r\n",
        b"X-A: a\r\n\tb\r\n",
        b"X-A : a\r\n",
        b"X-A: a\0b\r\n",
        b"X-A: a\x0bb\r\n",
        b"Host: x\r\n",
        b"Authorization: Bearer other\r\n",
        b"Content-Type: text/plain\r\n",
        b"Idempotency-Key: a\r\nIdempotency-Key: b\r\n",
        b"Connection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 2\r\n",
        b"a:\r\n" * 200,
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
        is_refused(connection, 400)


def is_refused(connection: socket.socket, status: int) -> None:
    """The answer has the form of every other error, and ends the connection."""
    head, _, body = answer_to(connection).partition(b"\r\n\r\n")
    line, *headers = head.decode().lower().split("\r\n")
    assert line.startswith(f"http/1.1 {status} "), line
    assert any(re.fullmatch("x-request-id: req_[0-9a-f]{32}", header) for header in headers)
    assert {"connection: close", "x-content-type-options: nosniff"} <= set(headers)
    error = json.loads(body)["error"]
    assert error["type"] == "invalid_request_error"
    assert error["message"].endswith(".")


@pytest.mark.parametrize(
    ("request_line", "headers", "status"),
    [
        (b"GET /healthz HTTP/1.1", b"", 400),
        (b"GET /healthz HTTP/1.1", b"Host:\r\n", 400),
        (b"GET /healthz HTTP/1.1", b"Host: a b\r\n", 400),
        (b"GET /healthz HTTP/1.1", b"Host: a/b\r\n", 400),
        (b"GET /healthz HTTP/1.1", b"Host: u@a\r\n", 400),
        (b"GET /healthz HTTP/1.1", b"Host: a:x\r\n", 400),
        (b"GET /healthz HTTP/1.1", "Host: 主机\r\n".encode(), 400),
        (b"GET /healthz HTTP/1.0", b"Host: a\r\nHost: b\r\n", 400),
        (b"POST /healthz HTTP/1.0", b"Host: a\r\nTransfer-Encoding: chunked\r\n", 400),
        (b"GET /healthz HTTP/2.0", b"Host: a\r\n", 505),
        (b"GET /healthz HTTP/3.0", b"Host: a\r\n", 505),
        (b"GET /healthz HTTP/1.7", b"Host: a\r\n", 505),
        (b"PRI * HTTP/2.0\r\n\r\nSM", b"", 505),
        (b"GET /healthz HTTP/0.9", b"Host: a\r\n", 400),
        (b"GET /healthz", b"Host: a\r\n", 400),
        (b"GET /healthz", b"", 400),
        (b"GET http://b/healthz HTTP/1.1", b"Host: a\r\n", 400),
        (b"GET http://u@a/healthz HTTP/1.1", b"Host: a\r\n", 400),
        (b"GET ftp://a/healthz HTTP/1.1", b"Host: a\r\n", 400),
        (b"GET http://a HTTP/1.1", b"Host: a\r\n", 400),
        (b"CONNECT a:443 HTTP/1.1", b"Host: a\r\n", 400),
        (b"GET /healthz#x HTTP/1.1", b"Host: a\r\n", 400),
        (b"GET healthz HTTP/1.1", b"Host: a\r\n", 400),
        ("GET /健康 HTTP/1.1".encode(), b"Host: a\r\n", 400),
        (b"get /healthz HTTP/1.1", b"Host: a\r\n", 400),
        (b"GET /healthz HTTP/1.1", b"Host: a\r\nX: " + b"a" * 70_000 + b"\r\n", 400),
    ],
)
def test_bytes_that_are_not_http_1_are_refused(
    api: RunningApi, request_line: bytes, headers: bytes, status: int
) -> None:
    with connect(api) as connection:
        connection.sendall(request_line + b"\r\n" + headers + b"\r\n")
        is_refused(connection, status)


@pytest.mark.parametrize(
    ("request_line", "headers"),
    [
        (b"GET /healthz HTTP/1.0", b""),
        (b"GET /healthz HTTP/1.1", b"Host: [::1]:8000\r\n"),
        (b"GET /healthz HTTP/1.1", b"Host: 127.0.0.1\r\n"),
        (b"GET /healthz HTTP/1.1", b"Host: burnish_api:8000\r\n"),
        (b"GET http://A:80/healthz HTTP/1.1", b"Host: a:80\r\n"),
        (b"GET /healthz HTTP/1.1", b"Host: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n"),
    ],
)
def test_unusual_requests_that_have_one_meaning_are_served(
    api: RunningApi, request_line: bytes, headers: bytes
) -> None:
    with connect(api) as connection:
        connection.sendall(request_line + b"\r\n" + headers + b"\r\n")
        assert connection.recv(65536).startswith(b"HTTP/1.1 200 ")
        if b"Upgrade" in headers:  # what follows a request for another protocol is a request of this one
            connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n")
            assert connection.recv(65536).startswith(b"HTTP/1.1 200 ")


@pytest.mark.slow
def test_a_refusal_does_not_fall_into_the_answers_before_it(api: RunningApi) -> None:
    good = b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n"
    with connect(api) as connection:
        connection.sendall(good * 3 + b"GET / HTTP/2.0\r\n\r\n" + good)
        told = answer_to(connection)
    answers = told.split(b"HTTP/1.1 200 OK\r\n")
    assert len(answers) == 4
    for answer in answers[1:]:
        json.loads(answer.partition(b"\r\n\r\n")[2])


def test_requests_that_wait_for_no_answer_are_bounded(api: RunningApi) -> None:
    with connect(api) as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n" * 1000)
        told = answer_to(connection)
    assert 1 <= told.count(b"HTTP/1.1 200 OK") <= 20


CHUNKED = b"POST /v1/files HTTP/1.1\r\nHost: x\r\nAuthorization: %s\r\nTransfer-Encoding: chunked\r\n%s\r\n"


@pytest.mark.parametrize("begun", [b"1;", b"1\r\n{\r\n0\r\nX: "])
def test_extensions_of_chunks_and_trailers_have_a_size(api: RunningApi, client: httpx.Client, begun: bytes) -> None:
    with connect(api) as connection:
        connection.sendall(CHUNKED % (key_of(client), b"Content-Type: multipart/form-data; boundary=x\r\n") + begun)
        with pytest.raises((ConnectionResetError, BrokenPipeError)):
            send_many(connection, b"a" * 1200)


def test_a_trailer_is_not_a_header(api: RunningApi, client: httpx.Client) -> None:
    with connect(api) as connection:
        connection.sendall(
            b"POST /v1/uploads HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
            b"2\r\n{}\r\n0\r\nAuthorization: " + key_of(client) + b"\r\n\r\n"
        )
        assert answer_to(connection).startswith(b"HTTP/1.1 401 ")


def test_a_body_that_continues_after_its_answer_is_read_only_briefly(
    api: RunningApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(BoundedHttp, "window", 60.0)
    monkeypatch.setattr(BoundedHttp, "drain_seconds", 0.5)
    with connect(api) as connection:
        connection.sendall(b"POST /healthz HTTP/1.1\r\nHost: x\r\nContent-Length: 9999\r\n\r\n{")
        assert answer_to(connection).startswith(b"HTTP/1.1 405 ")
