"""What the wire shows of files."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel

from service.kit.members import LEFT_OUT_IF_NULL
from service.tables.files import FileRow


class FileObject(BaseModel):
    """OpenAI's file object. A stored file was checked before, so its status is always `processed`."""

    id: str
    object: Literal["file"] = "file"
    bytes: int
    created_at: int
    expires_at: Annotated[int | None, LEFT_OUT_IF_NULL] = None
    filename: str
    purpose: str
    status: Literal["uploaded", "processed", "error"] = "processed"
    status_details: Annotated[str | None, LEFT_OUT_IF_NULL] = None

    @classmethod
    def from_row(cls, file: FileRow) -> FileObject:
        return cls(
            id=file.id,
            bytes=file.bytes,
            created_at=int(file.created_at),
            expires_at=None if file.expires_at is None else int(file.expires_at),
            filename=file.filename,
            purpose=file.purpose,
        )


class FileDeleted(BaseModel):
    """The answer to a deletion."""

    id: str
    object: Literal["file"] = "file"
    deleted: Literal[True] = True
