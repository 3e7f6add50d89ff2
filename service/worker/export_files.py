"""The files of an export: laid out for the trainer's program, packed, stored, and published in one transaction."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from service.context import Context
from service.exports import lifecycle, repository
from service.exports.lifecycle import attempt_folder
from service.jobs import references
from service.jobs import repository as jobs
from service.jobs.references import EarlierResult, StoredResult
from service.kit.errors import Unavailable
from service.staging.bases import prepared_base
from service.staging.errors import AttemptFailed, JobFailedForGood
from service.staging.hold import WorkHold
from service.staging.inputs import fetch_result
from service.staging.transfer import DamagedFiles, upload_entry
from service.storage.errors import StorageError, StorageFull
from service.tables.exports import ExportStatus, ModelExportRow
from service.worker.lease import Lease
from service.worker.publish import write_zip
from trainer.contract.export import (
    BASE_FOLDER,
    OUTPUT_FOLDER,
    RESULT_NAME,
    SOURCE_FOLDER,
    SPEC_NAME,
    ExportCheck,
    ExportSpec,
)
from trainer.contract.result import MANIFEST_NAME, Manifest, hash_files, read_manifest, write_manifest

log = logging.getLogger(__name__)


def lay_out(
    context: Context, export: ModelExportRow, lease: Lease, folder: Path, *, prepare_command: Sequence[str]
) -> EarlierResult:
    """Fetch the model, and prepare its base if it has one. Raises JobFailedForGood, AttemptFailed, LeaseLost."""
    result, stored_result = lease.retry_while_database_is_down(lambda: _find_source(context, export))
    fetch_result(context, result, stored_result, folder / SOURCE_FOLDER, lease)
    # The stored files are the export: neither a base nor the trainer is needed.
    if export.format == "adapter":
        return result
    if result.kind != "model":
        _, base = prepared_base(
            context, export.project_id, lease, result.job.base, workdir=folder, command=prepare_command
        )
        if base is not None:
            (folder / BASE_FOLDER).symlink_to(base, target_is_directory=True)
    spec = ExportSpec.model_validate(
        {
            "name": export.model,
            "kind": result.kind,
            "format": export.format,
            "precision": export.precision,
            "filename": export.filename,
        }
    )
    (folder / SPEC_NAME).write_text(spec.model_dump_json(indent=1), encoding="utf-8")
    return result


def pack_export(
    export: ModelExportRow, folder: Path, result: EarlierResult, hold: WorkHold
) -> tuple[Path, dict[str, Any] | None]:
    """Return the one file to store, and what was verified of it.

    Raises AttemptFailed if it is not there, and LeaseLost.
    """
    if export.format == "adapter":
        facts = {"base": result.job.base}
        return _zip_folder(folder / SOURCE_FOLDER, folder / export.filename, hold, facts=facts), None
    try:
        check = ExportCheck.model_validate_json((folder / RESULT_NAME).read_bytes()).model_dump(mode="json")
        if export.format == "gguf":
            (file,) = (folder / OUTPUT_FOLDER).iterdir()
            return file, check
        manifest = read_manifest(folder / OUTPUT_FOLDER)
        return _zip_folder(folder / OUTPUT_FOLDER, folder / export.filename, hold, facts=manifest.facts), check
    except (OSError, ValueError) as error:
        raise AttemptFailed("result_damaged", "The program that makes exports left no result.") from error


def store_export(
    context: Context, export: ModelExportRow, lease: Lease, file: Path, verification: dict[str, Any] | None
) -> None:
    """Upload a file and end the export as ready.

    Raises AttemptFailed if it cannot be stored, and StaleLease or LeaseLost if the export is not ours any more.
    """
    (entry,) = hash_files(file.parent, [file])
    key = f"{attempt_folder(export, lease.token)}/{export.filename}"

    def publish_stored() -> None:
        with context.db.write() as session:
            lifecycle.publish_export(
                session,
                export,
                token=lease.token,
                blob_key=key,
                size=entry.bytes,
                sha256=entry.sha256,
                verification=verification,
            )

    try:
        # Bytes first, then the row, so that an export that is `ready` can be downloaded.
        upload_entry(context.storage, key, file, entry, lease)
        lease.retry_while_database_is_down(publish_stored)
    except BaseException as error:
        is_published = _is_published(context, export, lease.token)
        if is_published:
            return  # an earlier try succeeded, and its answer got lost
        if is_published is False:
            _discard_blob(context, key)
        if isinstance(error, DamagedFiles | StorageError):
            code = "storage_full" if isinstance(error, StorageFull) else "storage_unavailable"
            raise AttemptFailed(code, str(error)) from error
        raise


def _find_source(context: Context, export: ModelExportRow) -> tuple[EarlierResult, StoredResult]:
    with context.db.read() as session:
        job = jobs.by_id(session, export.job_id)
        stored_result = references.locate_result(session, export.job_id, export.step)
    if job is None or stored_result is None:
        raise JobFailedForGood(
            "model_deleted", f"The model {export.model} was deleted before it was exported.", "model"
        )
    return EarlierResult(job, export.step, export.model), stored_result


def _zip_folder(source: Path, target: Path, hold: WorkHold, *, facts: dict[str, Any]) -> Path:
    """Pack a folder, with a manifest of what is in it: a checkpoint's own lists what only training needs."""
    files = [path for path in source.rglob("*") if path.is_file() and path != source / MANIFEST_NAME]
    write_manifest(source, Manifest(files=hash_files(source, files), facts=facts))
    zipped_paths = [*files, source / MANIFEST_NAME]
    write_zip(target, ((path.relative_to(source).as_posix(), path) for path in zipped_paths), hold)
    return target


def _is_published(context: Context, export: ModelExportRow, token: int) -> bool | None:
    """Return whether this attempt is published. None if the database does not say."""
    try:
        with context.db.read() as session:
            export_row = repository.by_id(session, export.id)
    except Unavailable:
        return None
    return export_row is not None and export_row.status == ExportStatus.READY and export_row.lease_token == token


def _discard_blob(context: Context, key: str) -> None:
    try:
        context.storage.delete(key)
    except StorageError as error:
        log.warning("What was stored under %s could not be removed: %s", key, error)
