"""A webhook receiver for one notice: it listens on loopback, verifies the signature, and keeps what came."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Self

from burnish import Burnish, WebhookEvent, WebhookVerificationError


class WebhookReceiver:
    """A context manager with the `url` to send to; `wait_for` gives the verified event about an object."""

    def __init__(self, *, client: Burnish, secret: str) -> None:
        self._arrived = threading.Condition()
        self._events: list[WebhookEvent] = []
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length", "0")))
                try:
                    event = client.webhooks.unwrap(body, dict(self.headers.items()), secret)
                except WebhookVerificationError:
                    self.send_response(400)
                    self.end_headers()
                    return
                self.send_response(204)
                self.end_headers()
                receiver._keep(event)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
                """Say nothing: the demo prints what matters."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/webhooks"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def wait_for(self, object_id: str, *, seconds: float) -> WebhookEvent:
        """Return the event about an object. Raises TimeoutError if none with a valid signature came in time."""
        with self._arrived:
            found: list[WebhookEvent] = []

            def came() -> bool:
                found[:] = [event for event in self._events if event.data.get("id") == object_id]
                return bool(found)

            if not self._arrived.wait_for(came, timeout=seconds):
                raise TimeoutError(f"No signed webhook about {object_id} came within {seconds:.0f} seconds.")
            return found[0]

    def _keep(self, event: WebhookEvent) -> None:
        with self._arrived:
            self._events.append(event)
            self._arrived.notify_all()
