"""The changes of an export's status. Each writes what must follow in the caller's transaction."""

from __future__ import annotations

from typing import Any

from sqlalchemy.orm import Session

from service.exports import repository
from service.jobs.errors import StaleLease
from service.jobs.lifecycle import JobFailureReason
from service.kit import outbox
from service.kit.db import db_now
from service.kit.settings import Settings
from service.tables.exports import ExportStatus, ModelExportRow


def folder_of(export: ModelExportRow) -> str:
    """Return where an export's blobs lie: among those of its job, with which they go."""
    return f"jobs/{export.job_id}/exports/{export.id}"


def attempt_folder(export: ModelExportRow, token: int) -> str:
    """Return where one attempt's blobs lie."""
    return f"{folder_of(export)}/{token}"


def start_export(session: Session, *, owner: str, lease_seconds: float) -> ModelExportRow | None:
    """Claim the export that is first in turn. None if none waits."""
    return repository.claim_export(session, owner=owner, lease_seconds=lease_seconds)


def publish_export(
    session: Session,
    export: ModelExportRow,
    *,
    token: int,
    blob_key: str,
    size: int,
    sha256: str,
    verification: dict[str, Any] | None,
) -> None:
    """The bytes are stored: running → ready. Raises StaleLease: then nothing is published."""
    values: dict[str, Any] = {"blob_key": blob_key, "bytes": size, "sha256": sha256, "verification": verification}
    if not repository.move_export(
        session, export.id, token, ExportStatus.READY, finished_at=db_now(), error=None, **values
    ):
        raise StaleLease(export.id)


def requeue_export(session: Session, export: ModelExportRow, settings: Settings, *, token: int) -> None:
    """The worker is being stopped: running → queued without counting a failure. Raises StaleLease."""
    _let_go(session, export, settings, token=token)


def retry_or_fail_export(
    session: Session, export: ModelExportRow, settings: Settings, *, token: int, error: JobFailureReason
) -> None:
    """An attempt died: running → queued while the budget of failures lasts, then → failed. Raises StaleLease."""
    failures = export.failures + 1
    if failures >= settings.max_failures:
        fail_export(session, export, settings, token=token, error=error, failures=failures)
    else:
        _let_go(session, export, settings, token=token, failures=failures)


def fail_export(
    session: Session, export: ModelExportRow, settings: Settings, *, token: int, error: JobFailureReason, **values: Any
) -> None:
    """End an export with an error that its owner can act on. Raises StaleLease."""
    if not repository.move_export(
        session, export.id, token, ExportStatus.FAILED, finished_at=db_now(), error=error.as_json(), **values
    ):
        raise StaleLease(export.id)
    _drop_blobs(session, attempt_folder(export, token), settings)


def remove_export(session: Session, export: ModelExportRow, settings: Settings) -> None:
    """Delete an export in any status; a worker that makes it notices at its next look."""
    repository.delete_export_row(session, export)
    _drop_blobs(session, folder_of(export), settings)


def _let_go(session: Session, export: ModelExportRow, settings: Settings, *, token: int, **values: Any) -> None:
    if not repository.move_export(session, export.id, token, ExportStatus.QUEUED, **values):
        raise StaleLease(export.id)
    _drop_blobs(session, attempt_folder(export, token), settings)


def _drop_blobs(session: Session, prefix: str, settings: Settings) -> None:
    """Delete blobs once no worker can still be writing them."""
    delay = settings.lease_seconds + settings.stop_seconds
    outbox.add_effect(session, outbox.Topic.DELETE_BLOBS, delay=delay, prefix=prefix)
