"""The rules of files: checked while they stream in, stored whole or not at all."""

from __future__ import annotations

import unicodedata
from typing import Self

from sqlalchemy.orm import Session

from burnish.datasets.files import SUFFIXES, FileChecker, checker_for
from service.context import Context
from service.files import repository
from service.files.errors import FileNotFound, InvalidFile
from service.files.schemas import FileObject
from service.files.tables import File
from service.keys.idempotency import Idempotency
from service.keys.service import Principal
from service.kit import ids, outbox
from service.kit.db import db_now
from service.kit.errors import InvalidRequest, NoSpace, NotFound, TooLarge, Unavailable
from service.kit.multipart import StreamedForm
from service.storage.base import BlobWriter
from service.storage.errors import BlobNotFound, StorageFull, StorageUnavailable

UPLOAD_PURPOSES = ("fine-tune",)
RESULT_PURPOSE = "fine-tune-results"
_MIN_EXPIRY, _MAX_EXPIRY = 3600, 2592000


class FileUpload:
    """One upload under way: form bytes in, a checked blob out. Leaving it without `complete` leaves nothing behind."""

    def __init__(self, context: Context, idempotency: Idempotency, principal: Principal, content_type: str) -> None:
        self._context = context
        self._idempotency = idempotency
        self._principal = principal
        self._id = ids.new_id(ids.FILE)
        self._filename = ""
        self._writer: BlobWriter | None = None
        self._bytes = 0
        self._checker: FileChecker | None = None
        self._form = StreamedForm(content_type, self._open)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._writer is not None:
            self._writer.abort()

    def feed(self, chunk: bytes) -> None:
        """Take the next bytes of the body. Raises InvalidRequest, TooLarge or NoSpace."""
        with storage_errors():
            self._form.feed(chunk)

    def complete(self) -> FileObject:
        """Store the file and its row. Raises InvalidFile with every problem found, InvalidRequest, NoSpace, Conflict.

        An upload that was sent before, with the same idempotency key, is not stored again.
        """
        self._form.finish()
        purpose = _checked_purpose(self._form.fields.get("purpose"))
        expiry = _checked_expiry(self._form.fields)
        assert self._checker is not None
        assert self._writer is not None
        summary = self._checker.finish()
        if not summary.ok:
            raise InvalidFile(self._filename, summary)
        with storage_errors():
            blob = self._writer.commit()
        file = File(
            id=self._id,
            project_id=self._principal.project_id,
            filename=self._filename,
            purpose=purpose,
            bytes=blob.bytes,
            sha256=blob.sha256,
            blob_key=blob.key,
            rows=summary.rows,
            expires_at=None if expiry is None else db_now() + expiry,
        )
        sent = {"filename": self._filename, "purpose": purpose, "sha256": blob.sha256, "expiry": expiry}

        def add() -> FileObject:
            session.add(file)
            session.flush()
            session.refresh(file)
            return FileObject.of(file)

        try:
            with self._context.db.write() as session:
                answer = self._idempotency.once(session, sent, FileObject, add)
        except Exception:
            self._context.storage.delete(blob.key)
            raise
        if answer.id != self._id:
            self._context.storage.delete(blob.key)
        return answer

    def _open(self, filename: str) -> FileUpload:
        self._filename = _checked_filename(filename)
        self._checker = checker_for(self._filename, max_line_bytes=self._context.settings.max_line_bytes)
        self._writer = self._context.storage.writer(f"files/{self._id}")
        return self

    def write(self, chunk: bytes) -> None:
        """Take the next bytes of the file itself (the form calls this)."""
        assert self._checker is not None
        assert self._writer is not None
        self._bytes += len(chunk)
        limit = self._context.settings.max_file_bytes
        if self._bytes > limit:
            raise TooLarge(
                f"'{self._filename}' is larger than {limit} bytes, the most this service accepts.", param="file"
            )
        self._checker.feed(chunk)
        self._writer.write(chunk)


class storage_errors:  # noqa: N801 - used as a `with` phrase
    """Turn the blob store's errors into the service's, with a sentence for the user."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        if isinstance(error, StorageFull):
            raise NoSpace(f"The service has no room left to store this. {error}") from error
        if isinstance(error, StorageUnavailable):
            raise Unavailable(f"The blob store does not answer: {error}") from error
        if isinstance(error, BlobNotFound):
            raise NotFound("The stored bytes are gone: they were deleted meanwhile, or lost.") from error


def find(session: Session, principal: Principal, file_id: str, *, param: str | None = "id") -> File:
    """Return a file that the caller may see. Raises FileNotFound."""
    file = repository.get(session, principal.project_id, file_id)
    if file is None:
        raise FileNotFound(file_id, param=param)
    return file


def delete(session: Session, file: File) -> None:
    """Delete a file: its row now, its bytes once this transaction has committed."""
    repository.remove(session, file)
    outbox.add(session, outbox.Topic.DELETE_BLOBS, key=file.blob_key)


def delete_expired(session: Session) -> int:
    """Delete the files whose time is over and return how many."""
    files = repository.expired(session)
    for file in files:
        delete(session, file)
    return len(files)


def _checked_filename(filename: str) -> str:
    name = filename.replace("\\", "/").rpartition("/")[2]
    if not name or len(name) > 255 or any(unicodedata.category(char) == "Cc" for char in name):
        raise InvalidRequest(
            "The part `file` needs a file name of 1 to 255 characters without control characters.", param="file"
        )
    if not name.endswith(SUFFIXES):
        raise InvalidRequest(
            f"'{name}' is neither a .jsonl file (JSON Lines: one JSON object a line, in UTF-8) nor a .txt file "
            "(plain text for pretraining, in UTF-8).",
            param="file",
        )
    return name


def _checked_purpose(purpose: str | None) -> str:
    if purpose not in UPLOAD_PURPOSES:
        given = "is missing" if purpose is None else f"'{purpose[:64]}' is not supported here"
        raise InvalidRequest(f"The field `purpose` {given}; use {' or '.join(UPLOAD_PURPOSES)}.", param="purpose")
    return purpose


def _checked_expiry(fields: dict[str, str]) -> int | None:
    anchor, seconds = fields.get("expires_after[anchor]"), fields.get("expires_after[seconds]")
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
