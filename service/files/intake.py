"""A dataset on its way into the blob store: its name, purpose and size are checked, and its bytes as they pass."""

from __future__ import annotations

import unicodedata

from service.context import Context
from service.files.checking import UploadCheck
from service.files.errors import FileTooLarge, InvalidFile
from service.kit import ids
from service.kit.db import db_now
from service.kit.errors import InvalidRequest
from service.limits.errors import NoRoom
from service.tables.files import FileRow

UPLOAD_PURPOSES = ("fine-tune",)
DEFAULT_FILENAME = "upload"
"""The name of a file that came without one, as OpenAI's clients and httpx name bytes."""
_MIN_EXPIRY, _MAX_EXPIRY = 3600, 2592000


class Intake:
    """Takes the bytes of one file, up to `room` (None: any). `abort`, after a `commit` too late to count, leaves
    nothing behind.
    """

    def __init__(self, context: Context, filename: str, *, room: int | None = None) -> None:
        self.file_id = ids.new_id(ids.FILE)
        self._filename = checked_filename(filename)
        self._limit = context.settings.max_file_bytes
        self._room = room
        self._bytes = 0
        self.check = UploadCheck(context.settings, self._filename)
        self._writer = context.storage.writer(f"files/{self.file_id}")

    def write(self, chunk: bytes) -> None:
        """Take the next bytes. Raises TooLarge, QuotaExceeded, or the blob store's errors."""
        self._bytes += len(chunk)
        if self._bytes > self._limit:
            raise FileTooLarge(self._filename, self._limit, param="file")
        if self._room is not None and self._bytes > self._room:
            raise NoRoom(f"'{self._filename}'", self._room)
        self.check.feed(chunk)
        self._writer.write(chunk)

    def commit(self, *, project_id: str, purpose: str, expiry: int | None) -> FileRow:
        """Store the bytes and return a row for them that is in no session yet.

        `expiry` is in seconds from now. Raises InvalidFile with every problem found, or the blob store's errors.
        """
        summary = self.check.finish()
        if not summary.ok:
            raise InvalidFile(self._filename, summary)
        blob = self._writer.commit()
        return FileRow(
            id=self.file_id,
            project_id=project_id,
            filename=self._filename,
            purpose=purpose,
            bytes=blob.bytes,
            sha256=blob.sha256,
            blob_key=blob.key,
            rows=None if self.check.packing == "parquet" else summary.rows,
            packing=self.check.packing,
            expires_at=None if expiry is None else db_now() + expiry,
        )

    def abort(self) -> None:
        """Drop what is not committed, and end the check."""
        self.check.close()
        self._writer.abort()


def checked_filename(filename: str, *, param: str = "file") -> str:
    """Return a file's name without folders, DEFAULT_FILENAME if nothing is left. Raises InvalidRequest for a bad one.

    The name need not say what the file holds: its content is checked.
    """
    name = filename.replace("\\", "/").rpartition("/")[2] or DEFAULT_FILENAME
    if len(name) > 255 or any(unicodedata.category(char) == "Cc" for char in name):
        subject = "The part `file`" if param == "file" else "The upload"
        raise InvalidRequest(
            f"{subject} needs a file name of at most 255 characters without control characters.", param=param
        )
    return name


def checked_purpose(purpose: str | None) -> str:
    """Return a purpose that files may be uploaded for. Raises InvalidRequest."""
    if purpose not in UPLOAD_PURPOSES:
        fault = "is missing" if purpose is None else f"'{purpose[:64]}' is not supported here"
        raise InvalidRequest(f"The field `purpose` {fault}; use {' or '.join(UPLOAD_PURPOSES)}.", param="purpose")
    return purpose


def checked_expiry(anchor: str | None, seconds: str | None) -> int | None:
    """Return after how many seconds a file is to be deleted, None for never. Raises InvalidRequest."""
    if anchor is None and seconds is None:
        return None
    if anchor != "created_at":
        raise InvalidRequest("`expires_after[anchor]` must be created_at.", param="expires_after.anchor")
    if seconds is None or not seconds.isascii() or not seconds.isdigit() or len(seconds) > 9:
        raise InvalidRequest("`expires_after[seconds]` must be a whole number.", param="expires_after.seconds")
    if not _MIN_EXPIRY <= int(seconds) <= _MAX_EXPIRY:
        raise InvalidRequest(
            f"`expires_after[seconds]` must be from {_MIN_EXPIRY} to {_MAX_EXPIRY}.", param="expires_after.seconds"
        )
    return int(seconds)
