"""`/v1/uploads`: large files in parts, which a broken connection does not undo."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from anyio.to_thread import run_sync

from burnish._parts import Parts
from burnish._request import Request, idempotency_headers, parser_of, path_segment
from burnish._transport import AsyncTransport, Transport
from burnish._upload import FileContent, Progress, UploadReader
from burnish.errors import APIError, UploadInterrupted
from burnish.schemas import File, UploadPart, UploadState


def _upload_path(upload_id: str, *rest: str) -> str:
    return "/".join(("/uploads", path_segment(upload_id), *rest))


def _create_upload_request(
    filename: str, size: int, purpose: str, mime_type: str, key: str | None
) -> Request[UploadState]:
    body = {"filename": filename, "bytes": size, "purpose": purpose, "mime_type": mime_type}
    return Request("POST", "/uploads", parser_of(UploadState), headers=idempotency_headers(key), json=body)


def _announce_upload_request(upload: UploadReader, purpose: str, key: str | None) -> Request[UploadState]:
    assert upload.size is not None
    return _create_upload_request(upload.filename, upload.size, purpose, upload.content_type, key)


def _retrieve_upload_request(upload_id: str) -> Request[UploadState]:
    return Request("GET", _upload_path(upload_id), parser_of(UploadState))


def _add_part_request(upload_id: str, data: UploadReader) -> Request[UploadPart]:
    return Request(
        "POST",
        _upload_path(upload_id, "parts"),
        parser_of(UploadPart),
        headers=idempotency_headers(None),
        upload=data,
        upload_field="data",
    )


def _complete_upload_request(upload_id: str, part_ids: Sequence[str], md5: str | None = None) -> Request[UploadState]:
    body: dict[str, Any] = {"part_ids": list(part_ids)} | ({"md5": md5} if md5 else {})
    return Request(
        "POST",
        _upload_path(upload_id, "complete"),
        parser_of(UploadState),
        headers=idempotency_headers(None),
        json=body,
    )


def _cancel_upload_request(upload_id: str) -> Request[UploadState]:
    return Request("POST", _upload_path(upload_id, "cancel"), parser_of(UploadState))


class Uploads:
    """`client.uploads`. `files.create` uses it by itself for large files."""

    def __init__(self, client: Transport) -> None:
        self._client = client

    def create(
        self,
        *,
        filename: str,
        bytes: int,  # noqa: A002 - the wire's name
        purpose: str = "fine-tune",
        mime_type: str = "application/octet-stream",
        idempotency_key: str | None = None,
    ) -> UploadState:
        """Announce a file of `bytes` bytes; it must be completed within an hour."""
        return self._client.send(_create_upload_request(filename, bytes, purpose, mime_type, idempotency_key))

    def retrieve(self, upload_id: str) -> UploadState:
        """Return an upload with the parts that the server has."""
        return self._client.send(_retrieve_upload_request(upload_id))

    def add_part(self, upload_id: str, *, data: FileContent, on_progress: Progress | None = None) -> UploadPart:
        """Send one part of at most 64 MiB."""
        with UploadReader(file=data, filename=None, on_progress=on_progress) as upload:
            return self._client.send(_add_part_request(upload_id, upload))

    def complete(self, upload_id: str, *, part_ids: Sequence[str], md5: str | None = None) -> UploadState:
        """Join parts, in this order, into a file. Raises BadRequestError if they do not add up."""
        return self._client.send(_complete_upload_request(upload_id, part_ids, md5))

    def cancel(self, upload_id: str) -> UploadState:
        """Give an upload up."""
        return self._client.send(_cancel_upload_request(upload_id))

    def send(self, upload_id: str, *, file: FileContent, on_progress: Progress | None = None) -> File:
        """Send what the server lacks of a file, and complete its upload; a second call resumes an interrupted one.

        Each part is checked by its SHA-256. Raises UploadError, UploadInterrupted, APIError.
        """
        with UploadReader(file=file, filename=None, on_progress=on_progress) as upload:
            return self._send_parts(self.retrieve(upload_id), upload)

    def start(self, upload: UploadReader, *, purpose: str, idempotency_key: str | None) -> File:
        """Announce an open file and send it (`files.create` calls this)."""
        return self._send_parts(self._client.send(_announce_upload_request(upload, purpose, idempotency_key)), upload)

    def _send_parts(self, state: UploadState, upload: UploadReader) -> File:
        parts = Parts(state, upload)
        try:
            for piece in parts.missing_pieces():
                parts.record_sent_part(piece, self._client.send(_add_part_request(state.id, piece)))
        except APIError as error:
            raise UploadInterrupted(state.id, upload.filename, error) from error
        return Parts.file_of(self._client.send(_complete_upload_request(state.id, parts.ids)))


class AsyncUploads:
    """`client.uploads`, awaited; see `Uploads` for each method."""

    def __init__(self, client: AsyncTransport) -> None:
        self._client = client

    async def create(
        self,
        *,
        filename: str,
        bytes: int,  # noqa: A002 - the wire's name
        purpose: str = "fine-tune",
        mime_type: str = "application/octet-stream",
        idempotency_key: str | None = None,
    ) -> UploadState:
        """Announce a file that comes in parts."""
        return await self._client.send(_create_upload_request(filename, bytes, purpose, mime_type, idempotency_key))

    async def retrieve(self, upload_id: str) -> UploadState:
        """Return an upload with the parts that the server has."""
        return await self._client.send(_retrieve_upload_request(upload_id))

    async def add_part(self, upload_id: str, *, data: FileContent, on_progress: Progress | None = None) -> UploadPart:
        """Send one part of an upload."""
        with await run_sync(partial(UploadReader, file=data, filename=None, on_progress=on_progress)) as upload:
            return await self._client.send(_add_part_request(upload_id, upload))

    async def complete(self, upload_id: str, *, part_ids: Sequence[str], md5: str | None = None) -> UploadState:
        """Join parts into a file."""
        return await self._client.send(_complete_upload_request(upload_id, part_ids, md5))

    async def cancel(self, upload_id: str) -> UploadState:
        """Give an upload up."""
        return await self._client.send(_cancel_upload_request(upload_id))

    async def send(self, upload_id: str, *, file: FileContent, on_progress: Progress | None = None) -> File:
        """Send what the server lacks of a file, and complete its upload."""
        with await run_sync(partial(UploadReader, file=file, filename=None, on_progress=on_progress)) as upload:
            return await self._send_parts(await self.retrieve(upload_id), upload)

    async def start(self, upload: UploadReader, *, purpose: str, idempotency_key: str | None) -> File:
        """Announce an open file and send it (`files.create` calls this)."""
        return await self._send_parts(
            await self._client.send(_announce_upload_request(upload, purpose, idempotency_key)), upload
        )

    async def _send_parts(self, state: UploadState, upload: UploadReader) -> File:
        parts = Parts(state, upload)
        try:
            for piece in parts.missing_pieces():
                parts.record_sent_part(piece, await self._client.send(_add_part_request(state.id, piece)))
        except APIError as error:
            raise UploadInterrupted(state.id, upload.filename, error) from error
        return Parts.file_of(await self._client.send(_complete_upload_request(state.id, parts.ids)))
