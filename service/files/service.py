"""The rules of files: checked while they stream in, stored whole or not at all."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import Self

from sqlalchemy import inspect
from sqlalchemy.orm import Session

from burnish.datasets import is_text
from service.context import Context
from service.files import repository
from service.files.errors import FileNotFound
from service.files.intake import Intake, checked_expiry, checked_purpose
from service.files.schemas import FileObject
from service.keys.idempotency import Idempotency
from service.keys.service import Principal
from service.kit import outbox
from service.kit.errors import NoSpace, NotFound, Unavailable
from service.kit.multipart import StreamedForm
from service.limits import service as limits
from service.limits.values import QuotaLimits
from service.storage.errors import BlobNotFound, StorageFull, StorageUnavailable
from service.tables.files import FileRow

RESULT_PURPOSE = "fine-tune-results"
_PACKED_TYPES = {"gzip": "application/gzip", "zstd": "application/zstd", "parquet": "application/vnd.apache.parquet"}


class FileUpload:
    """One upload under way: form bytes in, a checked blob out. Leaving it without `complete` leaves nothing behind."""

    def __init__(self, context: Context, idempotency: Idempotency, principal: Principal, content_type: str) -> None:
        self._context = context
        self._idempotency = idempotency
        self._principal = principal
        self._intake: Intake | None = None
        self._form = StreamedForm(content_type, self._open_intake)
        self._defaults = QuotaLimits.from_settings(context.settings)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._intake is not None:
            self._intake.abort()

    def feed(self, chunk: bytes) -> None:
        """Take the next bytes of the body. Raises InvalidRequest, TooLarge, QuotaExceeded or NoSpace."""
        with storage_errors():
            self._form.feed(chunk)

    def needs_process(self, *, at_end: bool = False) -> bool:
        """Return whether `start_check` must be called before the next step; see `UploadCheck`."""
        return self._intake is not None and self._intake.check.needs_process(at_end=at_end)

    def start_check(self) -> None:
        """Continue the check of the file in a process."""
        assert self._intake is not None
        self._intake.check.start_process()

    def complete(self) -> FileObject:
        """Store the file and its row. Raises InvalidFile with every problem found, InvalidRequest, NoSpace, Conflict,
        QuotaExceeded.

        An upload that was sent before, with the same idempotency key, is not stored again.
        """
        self._form.finish()
        fields = self._form.fields
        purpose = checked_purpose(fields.get("purpose"))
        expiry = checked_expiry(fields.get("expires_after[anchor]"), fields.get("expires_after[seconds]"))
        assert self._intake is not None
        with storage_errors():
            file = self._intake.commit(project_id=self._principal.project_id, purpose=purpose, expiry=expiry)
        upload_fields = {"filename": file.filename, "purpose": purpose, "sha256": file.sha256, "expiry": expiry}
        # In this order: the blob is deleted only after the transaction is known to have failed.
        with kept_if_used(self._context, file.blob_key, file), self._context.db.write() as session:
            return self._idempotency.run_once(
                session, upload_fields, FileObject, lambda: add_file(session, file, self._defaults)
            )

    def _open_intake(self, filename: str) -> Intake:
        with self._context.db.read() as session:
            # A first look without a lock: it spares a project over its quota the upload. `add_file` checks again under
            # the lock.
            room = limits.remaining_bytes(session, self._defaults, self._principal.project_id)
        self._intake = Intake(self._context, filename, room=room)
        return self._intake


def add_file(session: Session, file: FileRow, defaults: QuotaLimits) -> FileObject:
    """Add the row of a committed blob. If the project has the same bytes already, the file uses those.

    `defaults` are the limits of projects that have none of their own. Raises QuotaExceeded if the project has no
    room for it.
    """
    limits.require_room(session, defaults, file.project_id, what=f"'{file.filename}'", size=file.bytes)
    own = file.blob_key
    file.blob_key = repository.share_content(session, file)
    # The project has these bytes already: the copy that was just stored is deleted after the commit.
    if file.blob_key != own:
        outbox.add_effect(session, outbox.Topic.DELETE_BLOBS, key=own)
    session.add(file)
    session.flush()
    session.refresh(file)
    return FileObject.from_row(file)


@contextmanager
def kept_if_used(context: Context, key: str, row: object) -> Generator[None]:
    """Delete a committed blob unless the block has brought its row into the database."""
    try:
        yield
    except Exception:
        context.storage.delete(key)
        raise
    # The block succeeded without the row: the answer was an earlier one of the same idempotency key.
    if not inspect(row, raiseerr=True).has_identity:
        context.storage.delete(key)


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


def find_file(session: Session, principal: Principal, file_id: str, *, param: str | None = "id") -> FileRow:
    """Return a file that the caller may see. Raises FileNotFound."""
    file = repository.get_project_file(session, principal.project_id, file_id)
    if file is None:
        raise FileNotFound(file_id, param=param)
    return file


def media_type(file: FileRow) -> str:
    """Return the media type of a file's bytes."""
    if file.packing != "none":
        return _PACKED_TYPES[file.packing]
    if file.purpose == RESULT_PURPOSE:
        return "text/csv; charset=utf-8"
    return "text/plain; charset=utf-8" if is_text(file.filename) else "application/jsonl"


def remove_file(session: Session, file: FileRow) -> None:
    """Delete a file: its row now, its bytes (if no other file has them) once this transaction has committed."""
    if repository.delete_file_row(session, file) and repository.release_content(session, file.blob_key):
        outbox.add_effect(session, outbox.Topic.DELETE_BLOBS, key=file.blob_key)


def delete_expired(session: Session) -> int:
    """Delete the expired files and return how many."""
    files = repository.fetch_expired_files(session)
    for file in files:
        remove_file(session, file)
    return len(files)
