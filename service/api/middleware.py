"""What happens to every request: its id, its place in the audit log, a limit on JSON bodies, unexpected errors."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Sequence

from anyio import to_thread
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.api.errors import unforeseen_error
from service.api.guards import MAX_JSON_BYTES, BodyTooLarge
from service.api.headers import missing_security_headers
from service.api.proxies import client_address
from service.audit.refusals import RefusalLog
from service.kit import ids
from service.kit.call import CALL, ApiCall
from service.kit.log import REQUEST_ID
from service.kit.networks import Network

_log = logging.getLogger(__name__)
_STREAMED_PATHS = re.compile(r"/v1/files|/v1/uploads/[^/]+/parts")


class RequestId:
    """Puts `x-request-id` on every answer: the caller's if it has a safe form, else a fresh one.

    And the headers that keep a browser from making more of an answer than it is.
    """

    def __init__(self, app: ASGIApp, trusted_proxies: Sequence[Network] = ()) -> None:
        self._app = app
        self._proxies = trusted_proxies

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        response_started = False
        client_request_id = Headers(scope=scope).get("x-request-id", "")
        request_id = (
            # The id goes into headers and logs: anything else could forge lines there.
            client_request_id if re.fullmatch(r"[A-Za-z0-9_.-]{1,128}", client_request_id) else ids.new_request_id()
        )
        began = time.perf_counter()
        REQUEST_ID.set(request_id)
        call = ApiCall(request_id, scope["method"], address=client_address(scope, self._proxies))
        CALL.set(call)

        async def send_with_id(message: Message) -> None:
            nonlocal response_started
            if message["type"] == "http.response.start":
                response_started = True
                # Before the answer is sent: who gets it can rely on the audit log.
                if message["status"] >= 400:
                    await _record_refusal(scope, call, message["status"])
                headers = MutableHeaders(scope=message)
                headers.update(call.headers)
                headers["x-request-id"] = request_id
                headers["openai-processing-ms"] = str(round((time.perf_counter() - began) * 1000))
                headers.raw.extend(missing_security_headers(headers.raw))
            await send(message)

        try:
            await self._app(scope, receive, send_with_id)
        except ClientDisconnect:
            _log.info("%s %s was interrupted by its client", scope["method"], scope["path"])
        except Exception:
            _log.exception("%s %s failed", scope["method"], scope["path"])
            if response_started:
                raise
            await unforeseen_error(request_id)(scope, receive, send_with_id)


async def _record_refusal(scope: Scope, call: ApiCall, status: int) -> None:
    """Write a refused call to the audit log before it is answered."""
    if call.key_id is not None:
        refusals: RefusalLog = scope["app"].state.refusals
        if refusals.count_refusal(call, status):
            await to_thread.run_sync(refusals.write_due)


class JsonBodyLimit:
    """Refuses a body over 1 MiB that is not an upload, while it comes in.

    FastAPI reads a body whole, whatever its content type and before it asks for a key.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or _STREAMED_PATHS.fullmatch(scope["path"]):
            await self._app(scope, receive, send)
            return
        body_bytes = 0

        async def receive_and_count() -> Message:
            nonlocal body_bytes
            message = await receive()
            body_bytes += len(message.get("body", b""))
            if body_bytes > MAX_JSON_BYTES:
                raise HTTPException(413, BodyTooLarge().message)
            return message

        await self._app(scope, receive_and_count, send)
