"""The rules of uploads: parts come in any order, `complete` joins them into a checked file or changes nothing."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Self

from sqlalchemy.orm import Session

from service.context import Context
from service.files import service as files
from service.files.errors import FileTooLarge
from service.files.intake import Intake, checked_filename, checked_purpose
from service.files.service import kept_if_used, storage_errors
from service.keys.idempotency import Idempotency
from service.keys.service import Principal
from service.kit import ids, outbox
from service.kit.errors import InvalidRequest
from service.kit.multipart import StreamedForm
from service.limits import service as limits
from service.limits.values import QuotaLimits
from service.storage.base import BlobWriter
from service.tables.files import FileRow
from service.tables.uploads import UploadPartRow, UploadRow, UploadStatus
from service.uploads import repository
from service.uploads.errors import PartTooMuch, UploadNotFound, UploadNotPending
from service.uploads.schemas import MAX_PARTS, PartObject, UploadComplete, UploadCreate, UploadObject

MAX_PART_BYTES = 64 << 20
_SPARE = 2
"""How many times the announced bytes the parts may have: if an answer is lost, its part comes twice."""


def announce_upload(session: Session, principal: Principal, context: Context, body: UploadCreate) -> UploadObject:
    """Announce a file; its room is kept from now on. Raises InvalidRequest, TooLarge or QuotaExceeded."""
    filename = checked_filename(body.filename, param="filename")
    purpose = checked_purpose(body.purpose)
    limit = context.settings.max_file_bytes
    if body.bytes > limit:
        raise FileTooLarge(filename, limit, param="bytes")
    defaults = QuotaLimits.from_settings(context.settings)
    limits.require_room(session, defaults, principal.project_id, what=f"'{filename}'", size=body.bytes)
    upload = UploadRow(
        id=ids.new_id(ids.UPLOAD),
        project_id=principal.project_id,
        filename=filename,
        purpose=purpose,
        mime_type=body.mime_type,
        bytes=body.bytes,
        file_expiry=body.expires_after and body.expires_after.seconds,
    )
    session.add(upload)
    session.flush()
    session.refresh(upload)
    return UploadObject.from_row(upload)


def find_upload(session: Session, principal: Principal, upload_id: str) -> UploadRow:
    """Return an upload that the caller may see, expired ones included. Raises UploadNotFound."""
    upload = repository.get_project_upload(session, principal.project_id, upload_id)
    if upload is None:
        raise UploadNotFound(upload_id)
    if upload.status == UploadStatus.PENDING and repository.is_over(session, upload_id):
        session.expunge(upload)  # the controller writes it; here it is only shown
        # Shown as expired even if the controller has not come by yet.
        upload.status = UploadStatus.EXPIRED
    return upload


def find_pending(session: Session, principal: Principal, upload_id: str) -> UploadRow:
    """Return an upload that is still open. Raises UploadNotFound or UploadNotPending."""
    upload = find_upload(session, principal, upload_id)
    if upload.status != UploadStatus.PENDING:
        raise UploadNotPending(upload_id, upload.status, upload.file_id)
    return upload


def abandon_upload(session: Session, principal: Principal, upload_id: str) -> UploadObject:
    """Give an upload up; its parts are deleted. Raises UploadNotFound or UploadNotPending."""
    upload = find_pending(session, principal, upload_id)
    if not _end_upload(session, upload_id, UploadStatus.CANCELLED):
        session.refresh(upload)
        raise UploadNotPending(upload_id, upload.status, upload.file_id)
    session.refresh(upload)
    return UploadObject.from_row(upload)


def end_expired(session: Session) -> int:
    """End the expired uploads and return how many; their parts are deleted after the transaction."""
    overdue = repository.overdue_uploads(session)
    return sum(_end_upload(session, upload_id, UploadStatus.EXPIRED) for upload_id in overdue)


class PartUpload:
    """One part under way. Leaving it without `complete` leaves nothing behind."""

    def __init__(self, context: Context, upload: UploadRow, idempotency: Idempotency, content_type: str) -> None:
        self._context = context
        self._upload = upload
        self._idempotency = idempotency
        self._id = ids.new_id(ids.PART)
        self._bytes = 0
        self._writer: BlobWriter | None = None
        self._form = StreamedForm(content_type, self._open_part, file_field="data")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._writer is not None:
            self._writer.abort()

    def feed(self, chunk: bytes) -> None:
        """Take the next bytes of the body. Raises InvalidRequest or NoSpace."""
        with storage_errors():
            self._form.feed(chunk)

    def write(self, chunk: bytes) -> None:
        """Take the next bytes of the part itself (the form calls this)."""
        assert self._writer is not None
        self._bytes += len(chunk)
        # Counted as it comes: a Content-Length may lie, and chunked bodies have none.
        if self._bytes > MAX_PART_BYTES:
            raise PartTooMuch(f"A part may have {MAX_PART_BYTES} bytes (64 MiB): send more, smaller ones.")
        self._writer.write(chunk)

    def complete(self) -> PartObject:
        """Store the part and its row. Raises InvalidRequest, UploadNotPending, QuotaExceeded, NoSpace, Conflict.

        A part that was sent before, with the same idempotency key, is not stored again.
        """
        self._form.finish()
        assert self._writer is not None
        if not self._bytes:
            raise InvalidRequest("The part `data` is empty.", param="data")
        with storage_errors():
            blob = self._writer.commit()
        part = UploadPartRow(
            id=self._id, upload_id=self._upload.id, bytes=blob.bytes, sha256=blob.sha256, blob_key=blob.key
        )
        with kept_if_used(self._context, blob.key, part), self._context.db.write() as session:
            return self._idempotency.run_once(
                session, {"sha256": blob.sha256}, PartObject, lambda: self._add_part(session, part)
            )

    def _add_part(self, session: Session, part: UploadPartRow) -> PartObject:
        self._check_room(session, part.bytes)
        session.add(part)
        session.flush()
        session.refresh(part)
        return PartObject.from_row(part)

    def _open_part(self, _filename: str) -> PartUpload:
        self._writer = self._context.storage.writer(f"uploads/{self._upload.id}/{self._id}")
        return self

    def _check_room(self, session: Session, size: int) -> None:
        upload = self._upload
        # Locked, so that a completion or a cancel waits for this part, or this part sees it.
        if not repository.lock_pending(session, upload.id):
            raise UploadNotPending(upload.id, "no longer pending", None)
        count, total = repository.count_received(session, upload.id)
        if count >= MAX_PARTS:
            raise PartTooMuch(f"Upload {upload.id} has {MAX_PARTS} parts, the most there may be.")
        # Parts are not yet files: without this bound they would fill the disk past every quota.
        if total + size > _SPARE * upload.bytes:
            raise PartTooMuch(
                f"The parts of upload {upload.id} have {total + size} bytes now, far more than the {upload.bytes} that "
                "were announced: cancel it and create one of the right size."
            )
        # What was announced has its room already.
        beyond = total + size - max(upload.bytes, total)
        defaults = QuotaLimits.from_settings(self._context.settings)
        limits.require_room(session, defaults, upload.project_id, what="What the part adds", size=beyond)


def join_upload(
    context: Context, principal: Principal, idempotency: Idempotency, upload_id: str, body: UploadComplete
) -> UploadObject:
    """Join the parts into a file: checked, stored and recorded, or nothing at all.

    The bytes are copied outside of any transaction. Raises UploadNotFound, UploadNotPending, InvalidRequest (the
    upload stays pending, so that other parts can be named), InvalidFile, NoSpace.
    """
    with context.db.read() as session:
        upload = find_upload(session, principal, upload_id)
        parts = repository.fetch_received_parts(session, upload_id)
    if upload.status != UploadStatus.PENDING:
        return _answer_again(context, idempotency, upload, body)
    # Before the transaction: copying gigabytes must not hold SQLite's write lock.
    file = _join_parts(context, upload, _choose_parts(upload, parts, body.part_ids), body.md5)

    def finish_upload() -> UploadObject:
        # Conditional: of two completions at once one wins, and the other's copy is deleted by `kept_if_used`.
        if not _end_upload(session, upload_id, UploadStatus.COMPLETED, file_id=file.id):
            raise UploadNotPending(upload_id, "no longer pending", None)
        file_object = files.add_file(session, file, QuotaLimits.from_settings(context.settings))
        return UploadObject.from_row(find_upload(session, principal, upload_id), file_object)

    with kept_if_used(context, file.blob_key, file), context.db.write() as session:
        return idempotency.run_once(session, body.model_dump(), UploadObject, finish_upload)


def _answer_again(context: Context, idempotency: Idempotency, upload: UploadRow, body: UploadComplete) -> UploadObject:
    """Answer a completion of an upload that has ended: as before, if it is the same request."""

    def refuse_ended() -> UploadObject:
        raise UploadNotPending(upload.id, upload.status, upload.file_id)

    with context.db.write() as session:
        return idempotency.run_once(session, body.model_dump(), UploadObject, refuse_ended)


def _choose_parts(upload: UploadRow, parts: Sequence[UploadPartRow], part_ids: Sequence[str]) -> list[UploadPartRow]:
    part_by_id = {part.id: part for part in parts}
    for place, part_id in enumerate(part_ids):
        if part_id not in part_by_id:
            raise InvalidRequest(f"Upload {upload.id} has no part '{part_id}'.", param=f"part_ids.{place}")
    if len(set(part_ids)) != len(part_ids):
        twice = next(part_id for part_id in part_ids if part_ids.count(part_id) > 1)
        raise InvalidRequest(f"The part {twice} is named twice.", param="part_ids")
    chosen_parts = [part_by_id[part_id] for part_id in part_ids]
    total = sum(part.bytes for part in chosen_parts)
    if total != upload.bytes:
        raise InvalidRequest(
            f"The parts have {total} bytes together, but the upload was announced with {upload.bytes}: a part is "
            "missing, or one is named that does not belong.",
            param="part_ids",
        )
    return chosen_parts


def _join_parts(context: Context, upload: UploadRow, parts: Sequence[UploadPartRow], md5: str | None) -> FileRow:
    intake = Intake(context, upload.filename)
    # OpenAI's wire has MD5 here; it only catches parts in the wrong order.
    digest = hashlib.md5(usedforsecurity=False)
    try:
        with storage_errors():
            for part in parts:
                for chunk in context.storage.read(part.blob_key):
                    digest.update(chunk)
                    intake.write(chunk)
                    if intake.check.needs_process():
                        intake.check.start_process()
            if md5 is not None and digest.hexdigest() != md5.lower():
                raise InvalidRequest(
                    f"The parts have the MD5 {digest.hexdigest()} in this order, not {md5.lower()}: name them in the "
                    "order of the file, or send them again.",
                    param="md5",
                )
            return intake.commit(project_id=upload.project_id, purpose=upload.purpose, expiry=upload.file_expiry)
    finally:
        intake.abort()


def _end_upload(session: Session, upload_id: str, status: UploadStatus, *, file_id: str | None = None) -> bool:
    was_ended = repository.mark_ended(session, upload_id, status, file_id=file_id)
    if was_ended:
        outbox.add_effect(session, outbox.Topic.DELETE_BLOBS, prefix=f"uploads/{upload_id}")
    return was_ended
