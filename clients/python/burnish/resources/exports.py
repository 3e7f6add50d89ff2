"""`/v1/models/{model}/exports`: fine-tuned models and checkpoints as adapters, merged weights or GGUF files."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import httpx

from burnish._download import Download, filename_of, require_absent, target_path
from burnish._pages import AsyncPage, Page
from burnish._request import Request, idempotency_headers, parser_of, path_segment, query_params, whole_response
from burnish._transport import AsyncTransport, Finish, Transport
from burnish._upload import Progress
from burnish.errors import ExportFailed, WaitTimeoutError
from burnish.schemas import Deleted, ModelExport, PageData

Format = Literal["adapter", "merged", "gguf"]
Precision = Literal["f32", "f16", "bf16", "q8_0"]
OnStatus = Callable[[ModelExport], object]

_POLL_SECONDS = 0.5
_LONGEST_POLL_SECONDS = 5.0


def _exports_path(model: str, *rest: str) -> str:
    return "/".join(("/models", path_segment(model), "exports", *rest))


def _create_export_request(
    model: str, kind: Format, precision: Precision | None, expires_after: int | None, key: str | None
) -> Request[ModelExport]:
    body: dict[str, Any] = {"format": kind}
    if precision is not None:
        body["precision"] = precision
    if expires_after is not None:
        body["expires_after"] = {"anchor": "created_at", "seconds": expires_after}
    return Request("POST", _exports_path(model), parser_of(ModelExport), headers=idempotency_headers(key), json=body)


def _list_exports_request(model: str, after: str | None, limit: int | None) -> Request[PageData[ModelExport]]:
    return Request(
        "GET", _exports_path(model), parser_of(PageData[ModelExport]), params=query_params(after=after, limit=limit)
    )


def _retrieve_export_request(model: str, export_id: str) -> Request[ModelExport]:
    return Request("GET", _exports_path(model, path_segment(export_id)), parser_of(ModelExport))


def _delete_export_request(model: str, export_id: str) -> Request[Deleted]:
    return Request("DELETE", _exports_path(model, path_segment(export_id)), parser_of(Deleted))


def _export_content_request(model: str, export_id: str) -> Request[httpx.Response]:
    # Content-Digest is over the bytes as sent: no compression on the way.
    headers = {"Accept-Encoding": "identity"}
    return Request(
        "GET", _exports_path(model, path_segment(export_id), "content"), whole_response, headers=headers, streamed=True
    )


def _prepare_export_download(
    export: ModelExport, path: str | os.PathLike[str], extract: bool, on_progress: Progress | None
) -> tuple[Download, Finish]:
    if not extract:
        file = target_path(path, filename_of(export.filename, ""))
        return Download(file, digest_required=True, on_progress=on_progress), Download.finish
    if export.format == "gguf":
        raise ValueError("A GGUF export is one file: there is nothing to extract.")
    folder = Path(os.path.abspath(path))
    require_absent(folder)
    return Download(folder, digest_required=True, on_progress=on_progress), Download.finish_extracted


class _ExportWait:
    """How long to wait for an export, and how often to look."""

    def __init__(self, timeout: float | None, on_status: OnStatus | None) -> None:
        self._deadline = None if timeout is None else time.monotonic() + timeout
        self._on_status = on_status
        self._pause = _POLL_SECONDS

    def is_ready(self, export: ModelExport) -> bool:
        """Return whether the export is ready. Raises ExportFailed, WaitTimeoutError."""
        if self._on_status:
            self._on_status(export)
        if export.status == "failed":
            raise ExportFailed(export=export)
        if export.status == "ready":
            return True
        if self._deadline is not None and time.monotonic() >= self._deadline:
            raise WaitTimeoutError(f"The export {export.id} is still {export.status}; it continues.")
        return False

    def next_pause(self) -> float:
        """Return the seconds until the next look, each time a little more."""
        seconds, self._pause = self._pause, min(self._pause * 1.5, _LONGEST_POLL_SECONDS)
        return seconds if self._deadline is None else max(0.0, min(seconds, self._deadline - time.monotonic()))


class Exports:
    """`client.models.exports`. `model` is `ft:…` or a checkpoint, `ft:…:ckpt-step-N`."""

    def __init__(self, client: Transport) -> None:
        self._client = client

    def create(
        self,
        model: str,
        *,
        format: Format,  # noqa: A002 - the wire's name
        precision: Precision | None = None,
        expires_after: int | None = None,
        idempotency_key: str | None = None,
    ) -> ModelExport:
        """Ask for an export; the same model, format and precision gives the same one. `expires_after` in seconds.

        Without a `precision` merged weights come in bf16 and GGUF in f16; an adapter has none.
        """
        return self._client.send(_create_export_request(model, format, precision, expires_after, idempotency_key))

    def list(self, model: str, *, after: str | None = None, limit: int | None = None) -> Page[ModelExport]:
        """List a model's exports, newest first."""
        return Page(self._client, _list_exports_request(model, after, limit))

    def retrieve(self, model: str, export_id: str) -> ModelExport:
        """Return an export as it is now."""
        return self._client.send(_retrieve_export_request(model, export_id))

    def delete(self, model: str, export_id: str) -> Deleted:
        """Delete an export, or end the making of it."""
        return self._client.send(_delete_export_request(model, export_id))

    def wait(
        self, model: str, export_id: str, *, timeout: float | None = None, on_status: OnStatus | None = None
    ) -> ModelExport:
        """Wait until an export is ready and return it; `on_status` gets it at each look. `timeout` is in seconds.

        Raises ExportFailed, WaitTimeoutError.
        """
        wait = _ExportWait(timeout, on_status)
        while not wait.is_ready(export := self.retrieve(model, export_id)):
            self._client.sleep(wait.next_pause())
        return export

    def create_and_wait(
        self,
        model: str,
        *,
        format: Format,  # noqa: A002 - the wire's name
        precision: Precision | None = None,
        expires_after: int | None = None,
        timeout: float | None = None,
        on_status: OnStatus | None = None,
    ) -> ModelExport:
        """Ask for an export and wait until it is ready. Raises like `wait`."""
        export = self.create(model, format=format, precision=precision, expires_after=expires_after)
        return self.wait(model, export.id, timeout=timeout, on_status=on_status)

    def download(
        self,
        model: str,
        export_id: str,
        path: str | os.PathLike[str],
        *,
        extract: bool = False,
        on_progress: Progress | None = None,
    ) -> Path:
        """Download a ready export to `path` (a file or a folder), or unpack its zip as the new folder `path`.

        The bytes are checked against the server's SHA-256. Returns the path written.
        Raises ConflictError if it is not ready, DownloadCorrupt, FileExistsError, ValueError.
        """
        download, finish = _prepare_export_download(self.retrieve(model, export_id), path, extract, on_progress)
        with download as target:
            return self._client.download(_export_content_request(model, export_id), target, finish)


class AsyncExports:
    """`client.models.exports`, awaited; see `Exports` for each method."""

    def __init__(self, client: AsyncTransport) -> None:
        self._client = client

    async def create(
        self,
        model: str,
        *,
        format: Format,  # noqa: A002 - the wire's name
        precision: Precision | None = None,
        expires_after: int | None = None,
        idempotency_key: str | None = None,
    ) -> ModelExport:
        """Ask for an export."""
        return await self._client.send(_create_export_request(model, format, precision, expires_after, idempotency_key))

    async def list(self, model: str, *, after: str | None = None, limit: int | None = None) -> AsyncPage[ModelExport]:
        """List a model's exports, newest first."""
        return await AsyncPage[ModelExport].fetch(self._client, _list_exports_request(model, after, limit))

    async def retrieve(self, model: str, export_id: str) -> ModelExport:
        """Return an export as it is now."""
        return await self._client.send(_retrieve_export_request(model, export_id))

    async def delete(self, model: str, export_id: str) -> Deleted:
        """Delete an export, or end the making of it."""
        return await self._client.send(_delete_export_request(model, export_id))

    async def wait(
        self, model: str, export_id: str, *, timeout: float | None = None, on_status: OnStatus | None = None
    ) -> ModelExport:
        """Wait until an export is ready and return it."""
        wait = _ExportWait(timeout, on_status)
        while not wait.is_ready(export := await self.retrieve(model, export_id)):
            await self._client.sleep(wait.next_pause())
        return export

    async def create_and_wait(
        self,
        model: str,
        *,
        format: Format,  # noqa: A002 - the wire's name
        precision: Precision | None = None,
        expires_after: int | None = None,
        timeout: float | None = None,
        on_status: OnStatus | None = None,
    ) -> ModelExport:
        """Ask for an export and wait until it is ready."""
        export = await self.create(model, format=format, precision=precision, expires_after=expires_after)
        return await self.wait(model, export.id, timeout=timeout, on_status=on_status)

    async def download(
        self,
        model: str,
        export_id: str,
        path: str | os.PathLike[str],
        *,
        extract: bool = False,
        on_progress: Progress | None = None,
    ) -> Path:
        """Download a ready export, as it is or unpacked."""
        download, finish = _prepare_export_download(await self.retrieve(model, export_id), path, extract, on_progress)
        with download as target:
            return await self._client.download(_export_content_request(model, export_id), target, finish)
