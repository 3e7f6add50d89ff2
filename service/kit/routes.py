"""Routes that let a request in before they read its body, and look at the body before FastAPI does."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Coroutine, Iterator
from functools import partial, wraps
from typing import Any, cast

from anyio import to_thread
from fastapi import Request, Response
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute
from pydantic import TypeAdapter

from service.kit.errors import InvalidRequest
from service.kit.json_body import parse_body
from service.kit.problems import FEW_ELEMENTS, refuse_many_problems


class CheckedRoute(APIRoute):
    """The route of every router of the API."""

    def __init__(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
        super().__init__(path, _in_one_turn(endpoint), **options)

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return what serves a request."""
        handle = super().get_route_handler()
        dependencies = frozenset(_walk_calls(self.dependant))
        field = self.body_field
        adapter = TypeAdapter[Any](cast("Any", field.field_info.annotation)) if field is not None else None

        async def check_and_handle(request: Request) -> Response:
            admission = request.app.state.admission
            await admission.admit_request(request, dependencies)
            _refuse_packed(request)
            if adapter is None:  # no body is read, or as a stream
                return await handle(request)
            async with admission.hold_body(request):
                return await handle(_JsonRequest(request, adapter))

        return check_and_handle


def _walk_calls(dependant: Dependant) -> Iterator[Callable[..., Any]]:
    for part in dependant.dependencies:
        if part.call is not None:
            yield part.call
        yield from _walk_calls(part)


def _in_one_turn(endpoint: Callable[..., Any]) -> Callable[..., Any]:
    """Return the endpoint as a coroutine function; one that was none runs in a thread.

    FastAPI would give the answer of a plain function to a second thread, for a validation that takes less than that
    costs: a turn among the threads is a sixth of a small request.
    """
    if inspect.iscoroutinefunction(endpoint):
        return endpoint

    @wraps(endpoint)
    async def run_in_thread(**values: Any) -> Any:
        return await to_thread.run_sync(partial(endpoint, **values))

    return run_in_thread


class _JsonRequest(Request):
    def __init__(self, request: Request, adapter: TypeAdapter[Any]) -> None:
        super().__init__(request.scope, request.receive)
        self._adapter = adapter

    async def json(self) -> Any:
        """Return the body. Raises JSONDecodeError, UnicodeDecodeError, RecursionError, ValueError or InvalidRequest."""
        raw = await self.body()
        async with self.app.state.admission.parse_alone(self, len(raw)):
            body, elements = parse_body(raw)
            if elements > FEW_ELEMENTS:
                refuse_many_problems(self._adapter, body)
        return body


def _refuse_packed(request: Request) -> None:
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    if encoding not in ("", "identity"):
        raise InvalidRequest(
            f"The body is sent with Content-Encoding: {encoding[:64]}. Send it as it is, without that header; a "
            "dataset may be a .gz or .zst file.",
            param="Content-Encoding",
        )
