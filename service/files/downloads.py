"""Downloads of blobs: whole or a range (RFC 9110, 14), with a strong ETag and digests (RFC 9530)."""

from __future__ import annotations

import base64
import re
from collections.abc import Generator, Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from fastapi import Request
from fastapi.responses import Response, StreamingResponse

from service.context import Context
from service.files.service import storage_errors
from service.kit import metrics
from service.kit.declared import Responses, declare_errors
from service.kit.errors import RangeNotSatisfiable

_SHA = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"


def _describe_header(description: str, example: str) -> dict[str, Any]:
    return {"description": description, "schema": {"type": "string"}, "example": example}


_FACTS = {
    "ETag": _describe_header("The strong entity tag: the SHA-256 of all bytes.", f'"{_SHA}"'),
    "Repr-Digest": _describe_header(
        "The digest of all bytes (RFC 9530).", "sha-256=:n4bQgYhMfWWaL+qgxVrQFaO/TxsrC4Is0V1sFbDwCgg=:"
    ),
    "Content-Disposition": _describe_header("The file's name.", "attachment; filename*=UTF-8''train.jsonl"),
    "Accept-Ranges": _describe_header("Ranges of bytes can be requested.", "bytes"),
    "X-Content-Type-Options": _describe_header("The media type is what it says.", "nosniff"),
}
_RANGE = {"Content-Range": _describe_header("The bytes of this part, and how many there are.", "bytes 0-1023/52428")}


def download_responses(media_types: Mapping[str, str | None]) -> Responses:
    """Return a route's `responses` for a download of these media types, each with an example where text is sent."""
    whole = {
        **_FACTS,
        "Content-Digest": _describe_header("The digest of the bytes sent (RFC 9530).", "sha-256=:n4bQgYhM…=:"),
    }
    content: dict[str, Any] = {
        media_type: {"schema": {"type": "string", **({} if text else {"format": "binary"})}}
        | ({"example": text} if text else {})
        for media_type, text in media_types.items()
    }
    responses = declare_errors(RangeNotSatisfiable(52428))
    responses[416]["headers"] = {"Content-Range": _describe_header("How many bytes there are.", "bytes */52428")}
    return {
        200: {"description": "All bytes", "content": content, "headers": whole},
        206: {"description": "The requested range", "content": content, "headers": _FACTS | _RANGE},
        304: {"description": "The ETag in If-None-Match is still right", "headers": _FACTS},
        **responses,
    }


def _describe_condition(name: str, description: str, example: str) -> dict[str, Any]:
    return {"name": name, "in": "header", "required": False, **_describe_header(description, example)}


CONDITIONS = {
    "parameters": [
        _describe_condition("Range", "The bytes to send, one range; all without it.", "bytes=0-1023"),
        _describe_condition("If-Range", "Send the range only if the ETag is still this one, else all.", f'"{_SHA}"'),
        _describe_condition("If-None-Match", "Send nothing if the ETag is still one of these.", f'"{_SHA}"'),
    ]
}
"""A download route's `openapi_extra`: the headers that `download` reads."""


@dataclass(frozen=True)
class Attachment:
    """A blob as it is offered for download."""

    blob_key: str
    filename: str
    media_type: str
    bytes: int
    sha256: str

    @property
    def etag(self) -> str:
        """The strong entity tag."""
        return f'"{self.sha256}"'

    @property
    def digest(self) -> str:
        """The whole blob's digest as RFC 9530 writes it."""
        return f"sha-256=:{base64.b64encode(bytes.fromhex(self.sha256)).decode()}:"


def answer_download(context: Context, request: Request, attachment: Attachment) -> Response:
    """Answer 200 with all bytes, 206 with the requested range, or 304. Raises RangeNotSatisfiable (416), NotFound.

    More than one range at once is answered with all bytes, as a server may.
    """
    headers = {
        "Content-Disposition": f"attachment; filename*=UTF-8''{quote(attachment.filename)}",
        "ETag": attachment.etag,
        "Repr-Digest": attachment.digest,
        "Accept-Ranges": "bytes",
        "X-Content-Type-Options": "nosniff",
    }
    # Before the range: RFC 9110 (13.2.2) evaluates If-None-Match first.
    if attachment.etag in _parse_tags(request.headers.get("if-none-match", "")):
        return Response(status_code=304, headers=headers)
    part = _parse_range(request, attachment)
    start, end = part or (0, attachment.bytes)
    with storage_errors():
        # Opened before the answer begins: a missing blob can still be a 404.
        chunks = context.storage.read(attachment.blob_key, start=start, end=end)
    headers["Content-Length"] = str(end - start)
    if part is None:
        headers["Content-Digest"] = attachment.digest
    else:
        headers["Content-Range"] = f"bytes {start}-{end - 1}/{attachment.bytes}"
    return StreamingResponse(
        _count_bytes(chunks),
        status_code=200 if part is None else 206,
        media_type=attachment.media_type,
        headers=headers,
    )


def _count_bytes(chunks: Generator[bytes]) -> Generator[bytes]:
    with closing(chunks):
        for chunk in chunks:
            metrics.DOWNLOAD_BYTES.inc(len(chunk))
            yield chunk


def _parse_tags(value: str) -> list[str]:
    return [tag.strip().removeprefix("W/") for tag in value.split(",")]


def _parse_range(request: Request, attachment: Attachment) -> tuple[int, int] | None:
    """Return the first and the one-past-last requested byte; None for all of them."""
    match = re.fullmatch(r"bytes=\s*(\d{0,18})-(\d{0,18})\s*", request.headers.get("range", ""), re.ASCII)
    condition = request.headers.get("if-range")
    # A range that is not understood, or an If-Range that no longer fits, means the whole (RFC 9110, 14.2).
    if match is None or not (match[1] or match[2]) or condition not in (None, attachment.etag):
        return None
    size = attachment.bytes
    if not match[1]:
        # `bytes=-N`: the last N bytes.
        start, end = max(size - int(match[2]), 0), size
    else:
        start, end = int(match[1]), min(int(match[2] or size) + 1, size)
        if match[2] and int(match[2]) < start:
            return None  # not a range at all: RFC 9110 has it ignored
    if start >= end:
        raise RangeNotSatisfiable(size)
    return start, end
