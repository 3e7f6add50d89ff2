"""Routes that look at a body first: how it is packed, and what JSON can say though nothing can be done with it."""

from __future__ import annotations

import inspect
import json
from collections import Counter
from collections.abc import Callable, Coroutine
from functools import partial, wraps
from typing import Any

from anyio import to_thread
from fastapi import Request, Response
from fastapi.routing import APIRoute

from service.kit.errors import InvalidRequest
from service.kit.text import refuse_unusable


class CheckedRoute(APIRoute):
    """The route of every router of the API."""

    def __init__(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
        super().__init__(path, _in_one_turn(endpoint), **options)

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return what serves a request."""
        handle = super().get_route_handler()

        async def checked(request: Request) -> Response:
            _refuse_packed(request)
            return await handle(_JsonRequest(request.scope, request.receive))

        return checked


def _in_one_turn(endpoint: Callable[..., Any]) -> Callable[..., Any]:
    """Return the endpoint as a coroutine function; one that was none runs in a thread.

    FastAPI would give the answer of a plain function to a second thread, for a validation that takes less than that
    costs: a turn among the threads is a sixth of a small request.
    """
    if inspect.iscoroutinefunction(endpoint):
        return endpoint

    @wraps(endpoint)
    async def threaded(**values: Any) -> Any:
        return await to_thread.run_sync(partial(endpoint, **values))

    return threaded


class _JsonRequest(Request):
    async def json(self) -> Any:
        """Return the body. Raises JSONDecodeError, UnicodeDecodeError, RecursionError, ValueError or InvalidRequest."""
        body = json.loads(await self.body(), object_pairs_hook=_object)
        refuse_unusable(body)
        return body


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        twice, _ = Counter(name for name, _ in pairs).most_common(1)[0]
        refuse_unusable(twice)  # what names a place must be text that an answer can have
        name = twice[:64]
        raise InvalidRequest(f"The body has the key '{name}' twice in one object: send it once.", param=name)
    return made


def _refuse_packed(request: Request) -> None:
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    if encoding not in ("", "identity"):
        raise InvalidRequest(
            f"The body is sent with Content-Encoding: {encoding[:64]}. Send it as it is, without that header; a "
            "dataset may be a .gz or .zst file.",
            param="Content-Encoding",
        )
