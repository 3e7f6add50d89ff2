"""The two clients: `Burnish` blocks, `AsyncBurnish` awaits; the requests and the rules are the same."""

from __future__ import annotations

import platform
import time
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import anyio
import httpx
from anyio.to_thread import run_sync
from typing_extensions import Self

from burnish import config
from burnish._download import Download
from burnish._request import Request, RetryableCall, parser_of
from burnish._retry import RetryPolicy
from burnish._transport import Finish
from burnish._version import __version__
from burnish.resources import limits
from burnish.resources.audit_logs import AsyncAuditLogs, AuditLogs
from burnish.resources.files import AsyncFiles, Files
from burnish.resources.graders import AsyncGraders, Graders
from burnish.resources.jobs import AsyncFineTuning, AsyncJobs, FineTuning, Jobs
from burnish.resources.models import AsyncModels, Models
from burnish.resources.projects import AsyncProjects, Projects
from burnish.resources.uploads import AsyncUploads, Uploads
from burnish.resources.webhooks import AsyncWebhooks, Webhooks
from burnish.schemas import ProjectLimits

if TYPE_CHECKING:
    from burnish.resources.chat import AsyncChat, Chat

T = TypeVar("T")

TIMEOUT = httpx.Timeout(60.0, connect=10.0)

_LIVE = Request("GET", "/healthz", parser_of(dict[str, Any]), at_root=True)
_READY = Request("GET", "/readyz", parser_of(dict[str, Any]), at_root=True)


class _BaseClient:
    def __init__(
        self, *, base_url: str | None, api_key: str | None, timeout: float | httpx.Timeout, max_retries: int
    ) -> None:
        settings = config.resolve_settings(base_url, api_key)
        self.base_url = settings.base_url
        self.timeout = timeout
        self._policy = RetryPolicy(max_retries)
        self._headers = {
            "Authorization": f"Bearer {settings.api_key}",
            "User-Agent": f"burnish-python/{__version__} python/{platform.python_version()}",
        }

    def __repr__(self) -> str:
        return f"{type(self).__name__}(base_url={self.base_url!r})"

    def call(self, request: Request[Any]) -> RetryableCall:
        return RetryableCall(request, self._policy, self.base_url)


def _follows_redirects(request: httpx.Request) -> bool:
    # A redirected POST would become a GET of something else.
    return request.method == "GET"


class Burnish(_BaseClient):
    """A client of one Burnish server.

    `base_url` (ending in `/v1`) and `api_key` come from the arguments, else from BURNISH_BASE_URL and
    BURNISH_API_KEY, else from `client.json` in BURNISH_DATA (default `./.burnish`), else from where
    `burnish login` puts them.
    `timeout` is in seconds without a byte, not for the whole request. Raises ConfigurationError.
    """

    def __init__(
        self,
        *,
        base_url: str | None = None,
        api_key: str | None = None,
        timeout: float | httpx.Timeout = TIMEOUT,
        max_retries: int = 2,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        super().__init__(base_url=base_url, api_key=api_key, timeout=timeout, max_retries=max_retries)
        self._http = httpx.Client(headers=self._headers, timeout=timeout, transport=transport)
        self.uploads = Uploads(self)
        self.files = Files(self, self.uploads)
        self.jobs = Jobs(self)
        self.fine_tuning = FineTuning(self.jobs)
        self.models = Models(self)
        self.graders = Graders(self)
        self.projects = Projects(self)
        self.audit_logs = AuditLogs(self)
        self.webhooks = Webhooks(self)

    @cached_property
    def chat(self) -> Chat:
        """Chat completions; loaded when they are used, for their many types take a while."""
        from burnish.resources.chat import Chat

        return Chat(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections; the client cannot be used afterwards."""
        self._http.close()

    def healthz(self) -> dict[str, Any]:
        """Return what the server says about itself; it answers as soon as it runs."""
        return self.send(_LIVE)

    def readyz(self) -> dict[str, Any]:
        """Return the state of the server's parts. Raises InternalServerError if one is not ready."""
        return self.send(_READY)

    def limits(self) -> ProjectLimits:
        """Return what the key's project may use and uses."""
        return self.send(limits.OWN)

    def send(self, request: Request[T]) -> T:
        """Carry out a request, repeating it if the rules say so. Raises APIError."""
        with self.open_response(self.call(request)) as response:
            return request.parse(response)

    def download(self, request: Request[httpx.Response], target: Download, finish: Finish) -> Path:
        """Carry out a download, resuming one that was interrupted, earlier or now.

        Raises APIError, DownloadBusy, DownloadCorrupt.
        """
        call = self.call(request)
        call.continue_with_headers(target.open_partial(), progress=False)
        while True:
            had = target.done
            try:
                with self.open_response(call) as response:
                    target.start_response(response)
                    for chunk in response.iter_bytes():
                        target.write(chunk)
                if not target.must_restart():
                    return finish(target)
                call.continue_with_headers({}, progress=True)
            except httpx.RequestError as error:
                call.continue_with_headers(target.rest_headers(), progress=target.done > had)
                self.sleep(call.delay_after_failure(error))

    @contextmanager
    def open_response(self, call: RetryableCall) -> Generator[httpx.Response, None, None]:
        """Open a good answer; its body is read, unless the request says `streamed`. Raises APIError."""
        response = self._attempt_call(call)
        while response is None:
            response = self._attempt_call(call)
        try:
            yield response
        finally:
            response.close()

    def _attempt_call(self, call: RetryableCall) -> httpx.Response | None:
        request = call.build_request(self._http)
        try:
            response = self._http.send(request, stream=True, follow_redirects=_follows_redirects(request))
            if not (call.request.streamed and response.is_success):
                response.read()
        except httpx.RequestError as error:
            self.sleep(call.delay_after_failure(error))
            return None
        if response.is_success:
            return response
        self.sleep(call.delay_after_failure(response))
        return None

    @staticmethod
    def sleep(seconds: float) -> None:
        """Wait so many seconds between attempts."""
        time.sleep(seconds)


class AsyncBurnish(_BaseClient):
    """Like `Burnish`, to be awaited, under asyncio or trio."""

    def __init__(
        self,
        *,
        base_url: str | None = None,
        api_key: str | None = None,
        timeout: float | httpx.Timeout = TIMEOUT,
        max_retries: int = 2,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        super().__init__(base_url=base_url, api_key=api_key, timeout=timeout, max_retries=max_retries)
        self._http = httpx.AsyncClient(headers=self._headers, timeout=timeout, transport=transport)
        self.uploads = AsyncUploads(self)
        self.files = AsyncFiles(self, self.uploads)
        self.jobs = AsyncJobs(self)
        self.fine_tuning = AsyncFineTuning(self.jobs)
        self.models = AsyncModels(self)
        self.graders = AsyncGraders(self)
        self.projects = AsyncProjects(self)
        self.audit_logs = AsyncAuditLogs(self)
        self.webhooks = AsyncWebhooks(self)

    @cached_property
    def chat(self) -> AsyncChat:
        """Chat completions of bases and fine-tuned models."""
        from burnish.resources.chat import AsyncChat

        return AsyncChat(self)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close all connections; the client cannot be used afterwards."""
        await self._http.aclose()

    async def healthz(self) -> dict[str, Any]:
        """Return what the server says about itself; it answers as soon as it runs."""
        return await self.send(_LIVE)

    async def readyz(self) -> dict[str, Any]:
        """Return the state of the server's parts. Raises InternalServerError if one is not ready."""
        return await self.send(_READY)

    async def limits(self) -> ProjectLimits:
        """Return what the key's project may use and uses."""
        return await self.send(limits.OWN)

    async def send(self, request: Request[T]) -> T:
        """Carry out a request, repeating it if the rules say so. Raises APIError."""
        async with self.open_response(self.call(request)) as response:
            return request.parse(response)

    async def download(self, request: Request[httpx.Response], target: Download, finish: Finish) -> Path:
        """Carry out a download, resuming one that was interrupted, earlier or now.

        Raises APIError, DownloadBusy, DownloadCorrupt.
        """
        call = self.call(request)
        call.continue_with_headers(await run_sync(target.open_partial), progress=False)
        while True:
            had = target.done
            try:
                async with self.open_response(call) as response:
                    target.start_response(response)
                    async for chunk in response.aiter_bytes():
                        await run_sync(target.write, chunk)
                if not await run_sync(target.must_restart):
                    return await run_sync(finish, target)
                call.continue_with_headers({}, progress=True)
            except httpx.RequestError as error:
                call.continue_with_headers(target.rest_headers(), progress=target.done > had)
                await self.sleep(call.delay_after_failure(error))

    @asynccontextmanager
    async def open_response(self, call: RetryableCall) -> AsyncGenerator[httpx.Response, None]:
        """Open a good answer; its body is read, unless the request says `streamed`. Raises APIError."""
        response = await self._attempt_call(call)
        while response is None:
            response = await self._attempt_call(call)
        try:
            yield response
        finally:
            await response.aclose()

    async def _attempt_call(self, call: RetryableCall) -> httpx.Response | None:
        request = call.build_request(self._http)
        try:
            response = await self._http.send(request, stream=True, follow_redirects=_follows_redirects(request))
            if not (call.request.streamed and response.is_success):
                await response.aread()
        except httpx.RequestError as error:
            await self.sleep(call.delay_after_failure(error))
            return None
        if response.is_success:
            return response
        await self.sleep(call.delay_after_failure(response))
        return None

    @staticmethod
    async def sleep(seconds: float) -> None:
        """Wait so many seconds between attempts."""
        await anyio.sleep(seconds)
