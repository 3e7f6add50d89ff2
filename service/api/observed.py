"""What is measured of every request: how many, how long, how they ended, the bytes that came, and its span."""

from __future__ import annotations

import re
import time
from contextlib import nullcontext

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.kit import metrics, tracing

_UPLOADS = re.compile(r"/v1/files|/v1/uploads/[^/]+/parts")
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_FAILED = 500
_PROBES = ("/healthz", "/readyz")


class Observed:
    """The outermost layer: it sees each answer as the caller does."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status, began = _FAILED, time.perf_counter()

        async def send_and_note(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        method = scope["method"] if scope["method"] in _METHODS else "other"
        parent = Headers(scope=scope).get(tracing.HEADER)
        metrics.REQUESTS_IN_FLIGHT.inc()
        try:
            span = tracing.span(method, {"http.request.method": method}, parent=parent, kind="server")
            with nullcontext() if scope["path"] in _PROBES else span as current:
                try:
                    await self._app(scope, _count_upload_bytes(scope, receive), send_and_note)
                finally:
                    route = _route_path(scope)
                    if current is not None:
                        current.update_name(f"{method} {route}")
                        current.set_attributes({"http.route": route, "http.response.status_code": status})
        finally:
            metrics.REQUESTS_IN_FLIGHT.dec()
            metrics.REQUESTS.labels(_route_path(scope), method, status).inc()
            metrics.REQUEST_SECONDS.labels(_route_path(scope), method).observe(time.perf_counter() - began)


def _route_path(scope: Scope) -> str:
    """Return the path as it is declared: no two callers make two series of one route."""
    return str(getattr(scope.get("route"), "path", "unmatched"))


def _count_upload_bytes(scope: Scope, receive: Receive) -> Receive:
    """Count the bytes of a dataset as they come in."""
    if scope["method"] != "POST" or not _UPLOADS.fullmatch(scope["path"]):
        return receive

    async def receive_and_count() -> Message:
        message = await receive()
        metrics.UPLOAD_BYTES.inc(len(message.get("body", b"")))
        return message

    return receive_and_count
