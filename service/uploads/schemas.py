"""What the wire shows of uploads, and what requests may say."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from service.files.schemas import FileObject
from service.kit.expiry import ExpiresAfter
from service.tables.uploads import UploadPartRow, UploadRow

MAX_PARTS = 10_000
PartId = Annotated[str, StringConstraints(max_length=64)]


class UploadCreate(BaseModel):
    """The body of a creation: what will come."""

    model_config = ConfigDict(extra="forbid")

    filename: str = Field(examples=["train.jsonl"])
    purpose: str = Field(examples=["fine-tune"])
    bytes: int = Field(ge=1, le=2**53, strict=True, examples=[1024])
    mime_type: str = Field(min_length=1, max_length=128, examples=["text/jsonl"])
    expires_after: ExpiresAfter | None = None


class UploadComplete(BaseModel):
    """The body of a completion: which parts make the file, in their order."""

    model_config = ConfigDict(extra="forbid")

    part_ids: Annotated[list[PartId], Field(min_length=1, max_length=MAX_PARTS)]
    md5: Annotated[str, StringConstraints(pattern=r"^[0-9a-fA-F]{32}$")] | None = Field(
        None, description="The file's MD5 in hexadecimal, checked if it is given."
    )


class PartObject(BaseModel):
    """OpenAI's upload part; `bytes` and `sha256` (of the part) are Burnish's."""

    id: str
    object: Literal["upload.part"] = "upload.part"
    created_at: int
    upload_id: str
    bytes: int
    sha256: str

    @classmethod
    def from_row(cls, part: UploadPartRow) -> PartObject:
        return cls(
            id=part.id,
            created_at=int(part.created_at),
            upload_id=part.upload_id,
            bytes=part.bytes,
            sha256=part.sha256,
        )


class UploadObject(BaseModel):
    """An upload and its file, in OpenAI's form."""

    id: str
    object: Literal["upload"] = "upload"
    created_at: int
    expires_at: int
    filename: str
    purpose: str
    bytes: int
    status: Literal["pending", "completed", "cancelled", "expired"]
    file: FileObject | None = None

    @classmethod
    def from_row(cls, upload: UploadRow, file: FileObject | None = None) -> UploadObject:
        return cls.model_validate(
            {
                "id": upload.id,
                "created_at": int(upload.created_at),
                "expires_at": int(upload.expires_at),
                "filename": upload.filename,
                "purpose": upload.purpose,
                "bytes": upload.bytes,
                "status": upload.status,
                "file": file,
            }
        )


class UploadWithParts(UploadObject):
    """An upload and what has come of it so far, the first part first: what a client needs to resume."""

    parts: list[PartObject]
