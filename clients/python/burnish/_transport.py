"""What resources need of a client: the two clients fit these, and resources need not know them."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from pathlib import Path
from typing import Any, Protocol, TypeVar

import httpx

from burnish._download import Download
from burnish._request import Request, RetryableCall

T = TypeVar("T")
Finish = Callable[[Download], Path]


class CommonTransport(Protocol):
    """What both clients have in common."""

    @property
    def base_url(self) -> str:
        """The server's address, with `/v1`."""
        ...

    def call(self, request: Request[Any]) -> RetryableCall:
        """Return a call of the request, with the client's rules for repeating it."""
        ...


class Transport(CommonTransport, Protocol):
    """Sends requests and blocks; `Burnish` is one."""

    def send(self, request: Request[T]) -> T:
        """Carry out a request. Raises APIError."""
        ...

    def download(self, request: Request[httpx.Response], target: Download, finish: Finish) -> Path:
        """Carry out a download. Raises APIError, DownloadBusy, DownloadCorrupt."""
        ...

    def open_response(self, call: RetryableCall) -> AbstractContextManager[httpx.Response]:
        """Open a good answer. Raises APIError."""
        ...

    def sleep(self, seconds: float) -> None:
        """Wait so many seconds before the next attempt."""
        ...


class AsyncTransport(CommonTransport, Protocol):
    """Sends requests, to be awaited; `AsyncBurnish` is one."""

    async def send(self, request: Request[T]) -> T:
        """Carry out a request. Raises APIError."""
        ...

    async def download(self, request: Request[httpx.Response], target: Download, finish: Finish) -> Path:
        """Carry out a download. Raises APIError, DownloadBusy, DownloadCorrupt."""
        ...

    def open_response(self, call: RetryableCall) -> AbstractAsyncContextManager[httpx.Response]:
        """Open a good answer. Raises APIError."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Wait so many seconds before the next attempt."""
        ...
