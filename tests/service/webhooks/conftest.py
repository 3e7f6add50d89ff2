"""A context, a real receiver on loopback, and senders at a pace for tests."""

from __future__ import annotations

import base64
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from service.webhooks.target import DeliveryTarget
from tests.service.controller.conftest import context, make_job, settings

__all__ = ["context", "make_job", "settings"]

SECRET = "whsec_" + base64.b64encode(bytes(range(32))).decode()


@dataclass(frozen=True)
class Received:
    """One request that reached the receiver."""

    path: str
    headers: dict[str, str]
    body: bytes
    at: float


@dataclass
class Answer:
    """What the receiver says to a request."""

    status: int = 204
    headers: dict[str, str] = field(default_factory=dict)


class Receiver:
    """A real HTTP server that remembers what it got and answers as it is told."""

    def __init__(self) -> None:
        self.received: list[Received] = []
        self.answers: list[Answer] = []
        self.answer_to: Callable[[Received], Answer | None] = lambda _: None
        self.hang_on: Callable[[Received], bool] = lambda _: False
        self.release = threading.Event()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                headers = {name.lower(): value for name, value in self.headers.items()}
                request = Received(self.path, headers, body, time.time())
                receiver.received.append(request)
                if receiver.hang_on(request):
                    receiver.release.wait(60)
                answer = receiver.answer_to(request) or (receiver.answers.pop(0) if receiver.answers else Answer())
                try:
                    self.send_response(answer.status)
                    for name, value in answer.headers.items():
                        self.send_header(name, value)
                    self.end_headers()
                except OSError:
                    pass  # the sender has given up waiting

            def log_message(self, *args: object) -> None: ...

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}/钩子"

    def close(self) -> None:
        self.release.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    receiver = Receiver()
    yield receiver
    receiver.close()


@pytest.fixture
def configured(receiver: Receiver) -> DeliveryTarget:
    return DeliveryTarget(receiver.url, (SECRET,))
