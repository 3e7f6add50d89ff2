"""What the wire shows of exports, and what a creation may say."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from service.jobs.schemas import JobErrorObject
from service.kit.expiry import ExpiresAfter
from service.tables.exports import AS_STORED, ExportStatus, ModelExportRow
from trainer.contract.export import ExportCheck, Format, Precision


class ExportCreate(BaseModel):
    """The body of a creation."""

    model_config = ConfigDict(extra="forbid")

    format: Format = Field(
        description="`adapter`: PEFT's files in a zip; `merged`: all weights in the layout of transformers, in a zip; "
        "`gguf`: one file for llama.cpp.",
        examples=["gguf"],
    )
    precision: Precision | None = Field(
        None,
        description="`f32`, `f16` or `bf16`, and for gguf `q8_0` too. Without it, bf16 for merged and f16 for gguf.",
        examples=["q8_0"],
    )
    expires_after: ExpiresAfter | None = None


class ExportObject(BaseModel):
    """An export: Burnish's own object. `bytes` and `sha256` are there once it is `ready`."""

    id: str
    object: Literal["model.export"] = "model.export"
    model: str
    fine_tuning_job_id: str
    format: Format
    precision: Precision | None
    status: ExportStatus
    filename: str
    bytes: int | None
    sha256: str | None
    created_at: int
    finished_at: int | None
    expires_at: int
    error: JobErrorObject | None
    verification: ExportCheck | None

    @classmethod
    def from_row(cls, export: ModelExportRow) -> ExportObject:
        return cls.model_validate(
            {
                "id": export.id,
                "model": export.model,
                "fine_tuning_job_id": export.job_id,
                "format": export.format,
                "precision": None if export.precision == AS_STORED else export.precision,
                "status": export.status,
                "filename": export.filename,
                "bytes": export.bytes,
                "sha256": export.sha256,
                "created_at": int(export.created_at),
                "finished_at": None if export.finished_at is None else int(export.finished_at),
                "expires_at": int(export.expires_at),
                "error": export.error,
                "verification": export.verification,
            }
        )


class ExportDeleted(BaseModel):
    """The answer to a deletion."""

    id: str
    object: Literal["model.export"] = "model.export"
    deleted: Literal[True] = True
