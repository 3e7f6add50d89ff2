"""The only place that renders errors, in OpenAI's shape: ours, the framework's, and unexpected ones."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any, cast

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from service.kit.errors import ServiceError, TooLarge, Unavailable
from service.kit.problem_words import FieldProblem, join_alternatives, word_problem

_log = logging.getLogger(__name__)
_SHOWN, _LONGEST = 10, 256
"""How many problems an answer names, and how much of a place that the caller made up."""
_NO_OBJECT = frozenset({"missing", "model_type", "model_attributes_type", "dict_type"})


class TooManyConnections(Unavailable):
    """As many connections are open as may be."""

    code = "too_many_connections"
    shown = None

    def __init__(self, most: int) -> None:
        super().__init__(
            f"All places for connections are taken ({most} in this process). Close some that you do not use, or try "
            "again in a few seconds."
        )
        self.headers = {"retry-after": "2"}


class ErrorObject(BaseModel):
    """What went wrong: a sentence, a kind, the field it is about, a stable code."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorAnswer(BaseModel):
    """The body of every answer that is not a success."""

    error: ErrorObject


def add_error_handlers(app: FastAPI) -> None:
    """Make `app` answer every error in OpenAI's shape."""
    app.add_exception_handler(ServiceError, _service_error)
    app.add_exception_handler(RequestValidationError, _validation_error)
    app.add_exception_handler(HTTPException, _http_error)


def _make_error_response(
    status: int,
    message: str,
    *,
    param: str | None = None,
    code: str | None = None,
    headers: Mapping[str, str] | None = None,
) -> JSONResponse:
    body = {"error": {"message": message, "type": "invalid_request_error", "param": param, "code": code}}
    return _render_error(status, body, retry=False, headers=headers)


def _render_error(
    status: int, body: dict[str, Any], *, retry: bool, headers: Mapping[str, str] | None = None
) -> JSONResponse:
    # The official client retries 409 and 5xx by itself unless a header says not to.
    response_headers = {"x-should-retry": "true" if retry else "false", **(headers or {})}
    if status == 401:
        response_headers["WWW-Authenticate"] = "Bearer"
    return JSONResponse(body, status_code=status, headers=response_headers)


def service_error(error: ServiceError) -> JSONResponse:
    """Answer with an error of the service's own."""
    if error.status >= 500:
        _log.error("%s", error.message)
    return _render_error(error.status, error.error_body(), retry=error.retry, headers=error.headers)


async def _service_error(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, ServiceError)
    return service_error(error)


async def _validation_error(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    details = error.errors()
    faults = join_alternatives(_word_problem(item, error.body) for item in details)
    problems = [(".".join(place)[:_LONGEST], fault) for place, fault in faults.items()]
    sentences = [f"{where}: {fault}" if where else fault for where, fault in problems[:_SHOWN]]
    if len(problems) > _SHOWN:
        sentences.append(f"and {len(problems) - _SHOWN} more")
    return _make_error_response(400, "; ".join(sentences) + ".", param=problems[0][0] or None)


def _word_problem(item: dict[str, Any], body: Any) -> FieldProblem:
    """Name the field as the caller wrote it, and what is wrong with it."""
    location: Sequence[Any] = item["loc"]
    source = location[0]
    path = [str(part) for part in location[1:]]
    if source == "body" and isinstance(body, dict):
        path = _as_written(location[1:], cast("dict[str, Any]", body), is_missing=item["type"] == "missing")
    if item["type"] == "json_invalid":
        fault = f"The body is not valid JSON: {item['ctx']['error']} at character {location[-1]}"
        return FieldProblem((), item["type"], fault)
    if source == "body" and not path and item["type"] in _NO_OBJECT:
        fault = "The body must be a JSON object, sent with the header Content-Type: application/json"
        return FieldProblem((), "json_invalid", fault)
    return word_problem(tuple(path), item)


def _as_written(location: Sequence[Any], body: dict[str, Any], *, is_missing: bool) -> list[str]:
    """Return the path in the body: without what pydantic puts into it for the members of unions and for keys."""
    path: list[str] = []
    value: Any = body
    for place, part in enumerate(location):
        if isinstance(value, list) and isinstance(part, int):
            items = cast("list[Any]", value)
            value = items[part] if part < len(items) else None
        elif isinstance(value, dict) and part in value:
            value = cast("dict[str, Any]", value)[part]
        elif not (is_missing and place == len(location) - 1):
            continue
        path.append(str(part))
    return path


async def _http_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    if error.status_code == 404:
        return _make_error_response(
            404, f"Unknown request URL: {request.method} {request.url.path}.", code="unknown_url"
        )
    if error.status_code == 405:
        message = f"{request.url.path} does not take {request.method}."
        return _make_error_response(
            405, message, code="method_not_allowed", headers={"Allow": ", ".join(_methods_of(request))}
        )
    if isinstance(error.__cause__, ServiceError):  # FastAPI wraps what reading a body raises
        return await _service_error(request, error.__cause__)
    if error.status_code == 400:  # FastAPI's own, for whatever a body raises beside a JSONDecodeError
        return _make_error_response(
            400,
            "The body cannot be read as JSON: it is not UTF-8, is nested too deeply, or has a number with thousands "
            "of digits.",
        )
    code = TooLarge.code if error.status_code == TooLarge.status else None
    return _make_error_response(error.status_code, str(error.detail), code=code)


def _methods_of(request: Request) -> list[str]:
    routes: Sequence[APIRoute] = request.app.state.routes
    fitting = [route for route in routes if route.path_regex.match(request.url.path)]
    return sorted({method for route in fitting for method in route.methods or ()})


def unreadable_request(status: int, problem: str) -> JSONResponse:
    """Answer bytes that are not a valid HTTP request."""
    return _make_error_response(status, problem)


def refused_connection(most: int) -> JSONResponse:
    """Answer a connection beyond those that may be open."""
    error = TooManyConnections(most)
    return _render_error(error.status, error.error_body(), retry=error.retry, headers=error.headers)


def unforeseen_error(request_id: str) -> JSONResponse:
    """Answer for an error of ours: nothing of it is shown but the id under which the log has it."""
    return _render_error(500, unforeseen_body(request_id), retry=True)


def unforeseen_body(request_id: str) -> dict[str, Any]:
    """Return that answer's body."""
    message = f"The service made an error. Its log has the details under the request id {request_id}."
    return {"error": {"message": message, "type": "server_error", "param": None, "code": None}}
