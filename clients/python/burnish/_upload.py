"""A file on its way to the server: read in chunks, counted, and started anew for another attempt."""

from __future__ import annotations

import hashlib
import io
import mimetypes
import os
from collections.abc import Callable
from pathlib import Path
from typing import IO, cast

from typing_extensions import Self

from burnish.errors import UploadError

Progress = Callable[[int, int | None], None]
"""Called with the bytes done and the bytes in all (None if unknown)."""

FileContent = str | os.PathLike[str] | bytes | IO[bytes]


class UploadReader:
    """The file-like object that httpx's multipart encoder reads; memory use does not grow with the file.

    A caller's file object is sent from its present position. Raises UploadError if a path cannot be read.
    """

    def __init__(self, *, file: FileContent, filename: str | None, on_progress: Progress | None) -> None:
        self._owned = isinstance(file, (str, os.PathLike, bytes))
        self._file = _open_content(file)
        self._on_progress = on_progress
        self.filename = filename or _name_of(file)
        self.content_type = mimetypes.guess_type(self.filename)[0] or "application/octet-stream"
        self.replayable = self._file.seekable()
        self._sent = 0
        self._start = self._file.tell() if self.replayable else 0
        self._size = self._file.seek(0, os.SEEK_END) - self._start if self.replayable else None
        if self.replayable:
            self._file.seek(self._start)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._owned:
            self._file.close()

    @property
    def size(self) -> int | None:
        """How many bytes will be sent; None if only reading it shows."""
        return self._size

    def multipart_field(self) -> tuple[str, IO[bytes], str]:
        """Return the multipart field: name, content and type; httpx only reads, seeks and tells."""
        return self.filename, cast("IO[bytes]", self), self.content_type

    def read(self, size: int) -> bytes:
        """Return the next chunk. Raises UploadError if the file got shorter, TypeError for a text file."""
        bytes_left = size if self._size is None else min(size, self._size - self._sent)
        chunk = self._file.read(bytes_left) if bytes_left else b""
        if not isinstance(chunk, bytes):  # pyright: ignore[reportUnnecessaryIsInstance] - the caller's object
            raise TypeError("The file must be open_response in binary mode, not as text.")
        if not chunk and bytes_left and self._size is not None:
            raise UploadError(f"{self.filename} got shorter while it was sent; send it again.")
        self._sent += len(chunk)
        if chunk and self._on_progress:
            self._on_progress(self._sent, self._size)
        return chunk

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move within the part that is sent. Raises io.UnsupportedOperation if the source cannot."""
        if self._size is None:
            raise io.UnsupportedOperation("This source can be read only once.")
        self._sent = self._size if whence == os.SEEK_END else offset
        self._file.seek(self._start + self._sent)
        return self._sent

    def tell(self) -> int:
        """Return the position within the part that is sent."""
        return self._sent


class UploadPiece(UploadReader):
    """Bytes `start` to `start + size` of an upload that can be read again; only one piece at a time is read."""

    def __init__(self, whole: UploadReader, start: int, size: int) -> None:
        self._owned = False
        self._file = whole._file
        self._on_progress = (
            None if whole._on_progress is None else _offset_progress(whole._on_progress, start, whole.size)
        )
        self.filename = whole.filename
        self.content_type = whole.content_type
        self.replayable = True
        self._start = whole._start + start
        self._size = size
        self._file.seek(self._start)
        self.sha256 = hashlib.sha256(self._file.read(size)).hexdigest()
        self.seek(0)

    def report_sent(self) -> None:
        """Report the whole piece as done: the server has it."""
        if self._on_progress:
            self._on_progress(self._size or 0, self._size)


def _offset_progress(on_progress: Progress, start: int, total: int | None) -> Progress:
    return lambda done, _: on_progress(start + done, total)


def _open_content(file: FileContent) -> IO[bytes]:
    if isinstance(file, bytes):
        return io.BytesIO(file)
    if not isinstance(file, (str, os.PathLike)):
        return file
    try:
        return Path(file).open("rb")
    except OSError as error:
        raise UploadError(f"Cannot read {os.fspath(file)}: {error.strerror}.") from error


def _name_of(file: FileContent) -> str:
    name = os.fspath(file) if isinstance(file, (str, os.PathLike)) else getattr(file, "name", None)
    return Path(name).name if isinstance(name, str) else "data.jsonl"
