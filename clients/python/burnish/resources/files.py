"""`/v1/files`: datasets going in, result files coming out."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

import httpx
from anyio.to_thread import run_sync

from burnish._download import Download, filename_of, target_path
from burnish._pages import AsyncPage, Page
from burnish._parts import IN_PARTS_FROM
from burnish._request import (
    Request,
    idempotency_headers,
    parser_of,
    path_segment,
    query_params,
    response_content,
    whole_response,
)
from burnish._transport import AsyncTransport, Transport
from burnish._upload import FileContent, Progress, UploadReader
from burnish.resources.uploads import AsyncUploads, Uploads
from burnish.schemas import Deleted, File, PageData


def _create_file_request(upload: UploadReader, purpose: str, idempotency_key: str | None) -> Request[File]:
    headers = idempotency_headers(idempotency_key)
    return Request("POST", "/files", parser_of(File), headers=headers, form={"purpose": purpose}, upload=upload)


def _list_files_request(
    purpose: str | None, after: str | None, limit: int | None, order: str | None
) -> Request[PageData[File]]:
    params = query_params(purpose=purpose, after=after, limit=limit, order=order)
    return Request("GET", "/files", parser_of(PageData[File]), params=params)


def _retrieve_file_request(file_id: str) -> Request[File]:
    return Request("GET", f"/files/{path_segment(file_id)}", parser_of(File))


def _file_content_request(file_id: str) -> Request[bytes]:
    return Request("GET", f"/files/{path_segment(file_id)}/content", response_content)


def _download_file_request(file_id: str) -> Request[httpx.Response]:
    headers = {"Accept-Encoding": "identity"}
    return Request("GET", f"/files/{path_segment(file_id)}/content", whole_response, headers=headers, streamed=True)


def _download_target(file_id: str, path: str | os.PathLike[str], on_progress: Progress | None) -> Download:
    return Download(target_path(path, filename_of(file_id, "")), digest_required=False, on_progress=on_progress)


def _delete_file_request(file_id: str) -> Request[Deleted]:
    return Request("DELETE", f"/files/{path_segment(file_id)}", parser_of(Deleted))


class Files:
    """`client.files`: datasets, uploaded and checked."""

    def __init__(self, client: Transport, uploads: Uploads) -> None:
        self._client = client
        self._uploads = uploads

    def create(
        self,
        *,
        file: FileContent,
        purpose: str = "fine-tune",
        filename: str | None = None,
        on_progress: Progress | None = None,
        idempotency_key: str | None = None,
    ) -> File:
        """Upload a path, bytes or a binary file object in chunks; `on_progress(sent, total)` counts bytes.

        A file of 64 MiB or more goes in parts, each tried again by itself. Raises UploadError, APIError, and
        UploadInterrupted with what is needed to resume.
        """
        with UploadReader(file=file, filename=filename, on_progress=on_progress) as upload:
            if (upload.size or 0) >= IN_PARTS_FROM:
                return self._uploads.start(upload, purpose=purpose, idempotency_key=idempotency_key)
            return self._client.send(_create_file_request(upload, purpose, idempotency_key))

    def list(
        self,
        *,
        purpose: str | None = None,
        after: str | None = None,
        limit: int | None = None,
        order: str | None = None,
    ) -> Page[File]:
        """List files, newest first; `limit` is a page's size, iterating goes through all pages."""
        return Page(self._client, _list_files_request(purpose, after, limit, order))

    def retrieve(self, file_id: str) -> File:
        """Return one file's facts."""
        return self._client.send(_retrieve_file_request(file_id))

    def content(self, file_id: str) -> bytes:
        """Return a file's bytes, all in memory; `download` is for large ones."""
        return self._client.send(_file_content_request(file_id))

    def download(self, file_id: str, path: str | os.PathLike[str], *, on_progress: Progress | None = None) -> Path:
        """Write a file's bytes to `path` (a file or a folder), checked if the server states a hash."""
        with _download_target(file_id, path, on_progress) as target:
            return self._client.download(_download_file_request(file_id), target, Download.finish)

    def delete(self, file_id: str) -> Deleted:
        """Delete a file. Raises ConflictError if a job needs it."""
        return self._client.send(_delete_file_request(file_id))


class AsyncFiles:
    """`client.files`, awaited; see `Files` for each method."""

    def __init__(self, client: AsyncTransport, uploads: AsyncUploads) -> None:
        self._client = client
        self._uploads = uploads

    async def create(
        self,
        *,
        file: FileContent,
        purpose: str = "fine-tune",
        filename: str | None = None,
        on_progress: Progress | None = None,
        idempotency_key: str | None = None,
    ) -> File:
        """Upload a file; large ones go in parts. Raises as `Files.create`."""
        make = partial(UploadReader, file=file, filename=filename, on_progress=on_progress)
        with await run_sync(make) as upload:
            if (upload.size or 0) >= IN_PARTS_FROM:
                return await self._uploads.start(upload, purpose=purpose, idempotency_key=idempotency_key)
            return await self._client.send(_create_file_request(upload, purpose, idempotency_key))

    async def list(
        self,
        *,
        purpose: str | None = None,
        after: str | None = None,
        limit: int | None = None,
        order: str | None = None,
    ) -> AsyncPage[File]:
        """List the project's files, page by page."""
        return await AsyncPage[File].fetch(self._client, _list_files_request(purpose, after, limit, order))

    async def retrieve(self, file_id: str) -> File:
        """Return one file's facts."""
        return await self._client.send(_retrieve_file_request(file_id))

    async def content(self, file_id: str) -> bytes:
        """Return a file's bytes."""
        return await self._client.send(_file_content_request(file_id))

    async def download(
        self, file_id: str, path: str | os.PathLike[str], *, on_progress: Progress | None = None
    ) -> Path:
        """Write a file's bytes to `path`."""
        with _download_target(file_id, path, on_progress) as target:
            return await self._client.download(_download_file_request(file_id), target, Download.finish)

    async def delete(self, file_id: str) -> Deleted:
        """Delete a file from the server."""
        return await self._client.send(_delete_file_request(file_id))
