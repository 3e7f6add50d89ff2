"""Requests as values: what is sent and how the answer is read, the same for both kinds of client."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Generic, TypeVar
from urllib.parse import quote

import httpx
from pydantic import TypeAdapter, ValidationError

from burnish import errors
from burnish._retry import Failure, RetryPolicy
from burnish._upload import UploadReader

T = TypeVar("T")
Parser = Callable[[httpx.Response], T]
Params = Mapping[str, "str | int | Sequence[str]"]


@dataclass(frozen=True)
class Request(Generic[T]):
    """One request below the base address. `streamed`: the body of a good answer is left unread."""

    method: str
    path: str
    parse: Parser[T]
    params: Params = field(default_factory=dict[str, "str | int"])
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    json: Any = None
    form: Mapping[str, str] | None = None
    upload: UploadReader | None = None
    upload_field: str = "file"
    streamed: bool = False
    read_timeout: float | None = None
    at_root: bool = False
    """Whether the path lies beside `/v1`, not below it."""


@dataclass
class RetryableCall:
    """A request on its way: counts its attempts and decides what follows a failed one."""

    request: Request[Any]
    policy: RetryPolicy
    base_url: str
    attempt: int = 0
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    """Sent beside those of the request."""
    seconds_left: Callable[[], float | None] | None = None
    """Asked before each pause; it may raise to end the attempts."""

    def build_request(self, client: httpx.Client | httpx.AsyncClient) -> httpx.Request:
        """Return what to send now."""
        request = self.request
        timeout = client.timeout.as_dict()
        if request.read_timeout is not None:
            timeout["read"] = request.read_timeout
        upload = request.upload
        return client.build_request(
            request.method,
            (self.base_url.removesuffix("/v1") if request.at_root else self.base_url) + request.path,
            params=request.params or None,
            headers={**request.headers, **self.headers},
            json=request.json,
            data=request.form,
            files={request.upload_field: upload.multipart_field()} if upload else None,
            timeout=httpx.Timeout(**timeout),
        )

    def continue_with_headers(self, headers: Mapping[str, str], *, progress: bool) -> None:
        """Send further headers from now on; an attempt that brought something does not count."""
        self.headers = headers
        if progress:
            self.attempt = 0

    def delay_after_failure(self, failure: Failure) -> float:
        """Return the seconds to wait before the next attempt. Raises APIError if there shall be none."""
        upload = self.request.upload
        replayable = upload is None or upload.replayable
        delay = self.policy.delay_before_retry(self.attempt, failure) if replayable else None
        if delay is None:
            if isinstance(failure, httpx.Response):
                raise errors.from_response(failure)
            raise errors.from_exception(failure, self.base_url) from failure
        self.attempt += 1
        seconds_left = self.seconds_left() if self.seconds_left else None
        return delay if seconds_left is None else min(delay, seconds_left)


def path_segment(identifier: str) -> str:
    """Return an id fit for one segment of a path. Raises ValueError for what cannot be one."""
    if not identifier or identifier in (".", ".."):
        raise ValueError(f"{identifier!r} is not an id.")
    return quote(identifier, safe=":")


def idempotency_headers(idempotency_key: str | None) -> dict[str, str]:
    """Return the header by which a repeated creation is recognised; a key is made if none is given."""
    return {"Idempotency-Key": idempotency_key or str(uuid.uuid4())}


def query_params(**values: str | int | None) -> dict[str, str | int]:
    """Return the query parameters that are set."""
    return {name: value for name, value in values.items() if value is not None}


def parser_of(kind: type[T]) -> Parser[T]:
    """Return a reader of answers that hold a `kind`. It raises APIResponseError for anything else."""

    def parse_response(response: httpx.Response) -> T:
        try:
            return _type_adapter(kind).validate_json(response.content)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"]) or "the body"
            raise errors.APIResponseError(
                f"{response.request.url.copy_with(query=None)} answered something unexpected: {where}: {first['msg']}.",
                response=response,
            ) from None

    return parse_response


@cache
def _type_adapter(kind: type[T]) -> TypeAdapter[T]:
    return TypeAdapter(kind)


def whole_response(response: httpx.Response) -> httpx.Response:
    """Read an answer as itself."""
    return response


def response_content(response: httpx.Response) -> bytes:
    """Read an answer as bytes."""
    return response.content
