"""Errors of uploads: unknown ones, ones that have ended, and parts that do not fit."""

from __future__ import annotations

from service.kit.errors import Conflict, InvalidRequest, NotFound


class UploadNotFound(NotFound):
    """No upload of this project has the id."""

    def __init__(self, upload_id: str) -> None:
        super().__init__(f"No such Upload object: {upload_id[:64]}", param="id")


class UploadNotPending(Conflict):
    """The upload has ended, so nothing can be added to it."""

    def __init__(self, upload_id: str, status: str, file_id: str | None) -> None:
        hint = f": its file is {file_id}." if file_id else ". Create a new one."
        super().__init__(f"Upload {upload_id} is {status}{hint}", code=f"upload_{status}")


class PartTooMuch(InvalidRequest):
    """A part is larger than a part may be, or there are too many of them."""

    def __init__(self, message: str) -> None:
        super().__init__(message, param="data", code="part_too_large")
