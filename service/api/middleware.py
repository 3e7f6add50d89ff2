"""What happens to every request: its id, a limit on JSON bodies, and an answer to errors that nobody foresaw."""

from __future__ import annotations

import logging
import re
import secrets
import time

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.api.errors import unforeseen_error
from service.kit.log import REQUEST_ID

_log = logging.getLogger(__name__)
_MAX_JSON_BYTES = 1 << 20
_STREAMED_PATHS = re.compile(r"/v1/files|/v1/uploads/[^/]+/parts")


class RequestId:
    """Puts `x-request-id` on every answer: the caller's where it has a safe form, else a fresh one."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = False
        given = Headers(scope=scope).get("x-request-id", "")
        request_id = given if re.fullmatch(r"[A-Za-z0-9_.-]{1,128}", given) else f"req_{secrets.token_hex(16)}"
        began = time.perf_counter()
        REQUEST_ID.set(request_id)

        async def send_with_id(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                headers = MutableHeaders(scope=message)
                headers["x-request-id"] = request_id
                headers["openai-processing-ms"] = str(round((time.perf_counter() - began) * 1000))
            await send(message)

        try:
            await self._app(scope, receive, send_with_id)
        except ClientDisconnect:
            _log.info("%s %s was broken off by its client", scope["method"], scope["path"])
        except Exception:
            _log.exception("%s %s failed", scope["method"], scope["path"])
            if started:
                raise
            await unforeseen_error(request_id)(scope, receive, send_with_id)


class JsonBodyLimit:
    """Refuses a body over 1 MiB that is no upload, while it comes in.

    FastAPI reads a body whole, whatever its content type and before it asks for a key.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http" or _STREAMED_PATHS.fullmatch(scope["path"]):
            await self._app(scope, receive, send)
            return
        seen = 0

        async def counted() -> Message:
            nonlocal seen
            message = await receive()
            seen += len(message.get("body", b""))
            if seen > _MAX_JSON_BYTES:
                raise HTTPException(413, f"The body is larger than {_MAX_JSON_BYTES} bytes, the most for a request.")
            return message

        await self._app(scope, counted, send)
