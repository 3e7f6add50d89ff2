"""A real HTTP server on loopback that answers by script, and both clients driven alike."""

from __future__ import annotations

import io
import json
import socket
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from operator import attrgetter
from typing import Any
from urllib.parse import parse_qs, urlsplit

from anyio.from_thread import BlockingPortal
from python_multipart import parse_form

from burnish import AsyncBurnish, Burnish

KEY = "bk-test"


@dataclass
class Seen:
    """One request as it arrived."""

    method: str
    path: str
    query: dict[str, list[str]]
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)

    def form(self) -> tuple[dict[str, str], str, bytes]:
        """Return the fields, and the file's name and content."""
        fields: dict[str, str] = {}
        files: list[tuple[str, bytes]] = []

        def on_file(file: Any) -> None:
            file.file_object.seek(0)
            files.append((file.file_name.decode(), file.file_object.read()))

        headers = {name.title(): value.encode() for name, value in self.headers.items()}
        headers["Content-Length"] = str(len(self.body)).encode()
        parse_form(
            headers,
            io.BytesIO(self.body),
            lambda item: fields.__setitem__(item.field_name.decode(), item.value.decode()),
            on_file,
        )
        return fields, *files[0]


@dataclass
class Answer:
    """One answer. A `body` of several chunks is sent chunked; `cut` breaks the connection after the last."""

    body: Any = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    cut: bool = False


class _Listener(ThreadingHTTPServer):
    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hangs up is what some tests are about; anything else is shown."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


Script = Answer | list[Answer] | Callable[[Seen], Answer]


class Server:
    """Routes `(method, path)` to scripts; a list is played in order, its last answer again and again."""

    def __init__(self) -> None:
        self.routes: dict[tuple[str, str], Script] = {}
        self.seen: list[Seen] = []
        self.discard_bodies = False
        self.released = threading.Event()
        owner = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                owner.handle(self)

            do_POST = do_DELETE = do_GET  # noqa: N815 - the names that http.server calls

            def log_message(self, *args: Any) -> None:
                pass

        self.http = _Listener(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}/v1"

    def on(self, method: str, path: str, script: Script) -> None:
        self.routes[method, path] = script

    def handle(self, http: BaseHTTPRequestHandler) -> None:
        url = urlsplit(http.path)
        body = self._read(http)
        headers = {name.lower(): value for name, value in http.headers.items()}
        seen = Seen(http.command, url.path, parse_qs(url.query), headers, body)
        self.seen.append(seen)
        missing = Answer({"error": {"message": f"no route {url.path}", "type": "t", "code": "c"}}, 404)
        script = self.routes.get((seen.method, seen.path), missing)
        if isinstance(script, list):
            script = script.pop(0) if len(script) > 1 else script[0]
        self._write(http, script(seen) if callable(script) else script)

    def _read(self, http: BaseHTTPRequestHandler) -> bytes:
        if http.headers.get("transfer-encoding") == "chunked":
            body = b""
            while size := int(http.rfile.readline(), 16):
                body += http.rfile.read(size)
                http.rfile.readline()
            http.rfile.readline()
            return body
        left = int(http.headers.get("content-length", 0))
        if not self.discard_bodies:
            return http.rfile.read(left)
        while left:
            left -= len(http.rfile.read(min(left, 2**16)))
        return b""

    def _write(self, http: BaseHTTPRequestHandler, answer: Answer) -> None:
        body = answer.body
        if isinstance(body, dict):
            body = json.dumps(body, ensure_ascii=False).encode()
        http.send_response(answer.status)
        for name, value in {"x-request-id": "req_7", **answer.headers}.items():
            http.send_header(name, value)
        whole = isinstance(body, bytes)
        if not (whole and "Content-Length" in answer.headers):
            length = ("Content-Length", str(len(body))) if whole else ("Transfer-Encoding", "chunked")
            http.send_header(*length)
        http.end_headers()
        self._write_body(http, [body] if whole else body, whole)
        if answer.cut:
            http.wfile.flush()
            http.close_connection = True
            http.connection.shutdown(socket.SHUT_RDWR)
        elif not whole:
            http.wfile.write(b"0\r\n\r\n")

    @staticmethod
    def _write_body(http: BaseHTTPRequestHandler, chunks: Iterable[bytes], whole: bool) -> None:
        for chunk in chunks:
            http.wfile.write(chunk if whole else b"%x\r\n%b\r\n" % (len(chunk), chunk))
            http.wfile.flush()

    def silence(self) -> Iterator[bytes]:
        """A body that begins and then says nothing until the test is over."""
        yield b": hello\n\n"
        self.released.wait(60)


class Driver:
    """Calls a method by its dotted name and waits for what it gives."""

    def __init__(self, client: Burnish | AsyncBurnish, portal: BlockingPortal | None = None) -> None:
        self.client = client
        self._portal = portal

    def call(self, name: str, /, *args: Any, **kwargs: Any) -> Any:
        method = attrgetter(name)(self.client)
        return self._portal.call(lambda: method(*args, **kwargs)) if self._portal else method(*args, **kwargs)

    def items(self, name: str, *args: Any, **kwargs: Any) -> list[Any]:
        """All items of all pages, or of a stream."""
        return self.drain(self.call(name, *args, **kwargs))

    def drain(self, source: Any) -> list[Any]:
        if self._portal is None:
            return list(source)

        async def gather(source: AsyncIterator[Any]) -> list[Any]:
            return [item async for item in source]

        return self._portal.call(gather, source)

    def stream(self, job_id: str) -> tuple[list[Any], Any]:
        stream: Any = self.client.jobs.stream(job_id)
        return self.drain(stream), stream.job


def refusal(status: int, message: str = "No.", headers: dict[str, str] | None = None, **more: Any) -> Answer:
    """OpenAI's error object."""
    error = {"message": message, "type": "invalid_request_error", "param": None, "code": None, **more}
    return Answer({"error": error}, status, headers or {})


def a_file(number: int = 1) -> dict[str, Any]:
    return {
        "id": f"file-{number}",
        "object": "file",
        "bytes": 5,
        "created_at": 1700000000 + number,
        "filename": "数据.jsonl",
        "purpose": "fine-tune",
        "status": "processed",
    }


def a_job(status: str = "succeeded", **more: Any) -> dict[str, Any]:
    return {
        "id": "ftjob-1",
        "object": "fine_tuning.job",
        "created_at": 1700000000,
        "status": status,
        "phase": status,
        "model": "tiny",
        "training_file": "file-1",
        "hyperparameters": {"n_epochs": 1},
        "result_files": [],
        "seed": 7,
        "organization_id": "org",
        "error": None,
        "fine_tuned_model": "ft:tiny:org::1" if status == "succeeded" else None,
        "a_field_of_the_future": {"x": 1},
        **more,
    }


def an_event(number: int, **more: Any) -> dict[str, Any]:
    return {
        "id": f"ftevent-{number}",
        "object": "fine_tuning.job.event",
        "created_at": 1700000000 + number,
        "level": "info",
        "message": f"第{number}步",
        "type": "message",
        "data": None,
        **more,
    }


def a_page(items: list[dict[str, Any]], has_more: bool = False) -> dict[str, Any]:
    return {"object": "list", "data": items, "has_more": has_more}


def frame(event: dict[str, Any], name: str = "fine_tuning.job.event") -> bytes:
    head = f"id: {event['id']}\nevent: {name}\n" if name != "done" else "event: done\n"
    return f"{head}data: {json.dumps(event, ensure_ascii=False)}\n\n".encode()


SSE = {"Content-Type": "text/event-stream"}


def an_endpoint(number: int = 1, **more: Any) -> dict[str, Any]:
    return {
        "id": f"whe_{number}",
        "object": "webhook_endpoint",
        "name": "财务",
        "url": "https://example.com/hook",
        "event_types": ["fine_tuning.job.succeeded", "fine_tuning.job.failed"],
        "created_at": 1700000000 + number,
        "updated_at": 1700000000 + number,
        "signing_secret_hint": "whsec_AAAA…",
        "enabled": True,
        "disabled_at": None,
        "disabled_reason": None,
        "failing_since": None,
        **more,
    }


def a_delivery(number: int = 1, **more: Any) -> dict[str, Any]:
    return {
        "id": f"whatt_{number}",
        "object": "webhook_endpoint.delivery",
        "webhook_endpoint_id": "whe_1",
        "event_id": f"evt_{number}",
        "event_type": "fine_tuning.job.failed",
        "url": "https://example.com/hook",
        "created_at": 1700000000 + number,
        "status_code": 204,
        "success": True,
        "error": None,
        "duration_ms": 12,
        **more,
    }
