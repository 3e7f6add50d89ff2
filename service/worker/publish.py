"""Publishes a result: verified files, a zip of the adapter or the model, the manifest last, then one transaction."""

from __future__ import annotations

import logging
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from service.context import Context
from service.jobs import lifecycle, methods, repository
from service.jobs.lifecycle import PublishedFile
from service.kit import tracing
from service.kit.errors import Unavailable
from service.staging.errors import AttemptFailed
from service.staging.hold import WorkHold
from service.staging.transfer import DamagedFiles, checked_entries, job_prefix, upload_entry
from service.storage.errors import StorageError, StorageFull
from service.tables.jobs import JobRow, JobState
from service.worker.lease import Lease
from trainer.contract.methods.base import Kinds
from trainer.contract.result import (
    ADAPTER_FOLDER,
    MANIFEST_NAME,
    MODEL_FOLDER,
    OUTPUT_FOLDER,
    REPORT_HTML,
    REPORT_JSON,
    RESULT_CSV,
    FileEntry,
    Manifest,
    hash_files,
    read_manifest,
)

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _ResultLayout:
    """How one kind of result lies: its folder, what must be in it, and its artifact's name in the API."""

    folder: str
    files: tuple[str, ...]
    artifact: str


_ADAPTER = _ResultLayout(ADAPTER_FOLDER, ("adapter_config.json", "adapter_model.safetensors", MANIFEST_NAME), "adapter")
_KINDS: dict[Kinds, _ResultLayout] = {
    "adapter": _ADAPTER,
    "reward": _ADAPTER,
    "model": _ResultLayout(MODEL_FOLDER, ("config.json", MANIFEST_NAME), "model"),
}
_REQUIRED = (REPORT_JSON, REPORT_HTML, RESULT_CSV)
_ZIP_DATE = (1980, 1, 1, 0, 0, 0)
_MODE = 0o100644 << 16


@tracing.trace_calls("publish")
def publish_result(context: Context, job: JobRow, lease: Lease, *, folder: Path) -> None:
    """Store what the trainer left and end the job as succeeded.

    Raises AttemptFailed if the result is not what its manifest states or cannot be stored, and StaleLease
    or LeaseLost if the job is not ours any more; then what was stored is removed again.
    """
    prefix = f"{job_prefix(job.id, lease.token)}/{OUTPUT_FOLDER}"
    kind = methods.load_method(job.method).hyperparameters.result_kind
    try:
        # Hashed before anything is stored: a result that was damaged on this disk must never become a model.
        manifest = _verify_manifest(folder, kind)
        zip_name = f"{job.model_name.replace(':', '-')}.zip"
        files = _store_files(context, lease, folder, manifest, prefix, _KINDS[kind], zip_name)
        lease.retry_while_database_is_down(lambda: _record_success(context, job, lease, manifest, prefix, files))
    # The commit may have happened although its answer was lost. Deleting the files then would leave a model without
    # weights.
    except BaseException as error:
        has_succeeded = _has_succeeded(context, lease)
        if has_succeeded:
            return
        # None means that the database did not say: the files stay, and the controller's sweep deletes them if they
        # belong to nothing.
        if has_succeeded is False:
            _discard_files(context, prefix)
        if isinstance(error, DamagedFiles | StorageError):
            raise _explain_failure(error) from error
        raise


def write_zip(target: Path, files: Iterable[tuple[str, Path]], hold: WorkHold) -> None:
    """Write a zip that depends on names and contents alone: sorted, one date, no owner. Raises LeaseLost."""
    with zipfile.ZipFile(target, "w") as archive:
        for name, path in sorted(files):
            info = zipfile.ZipInfo(name, date_time=_ZIP_DATE)
            # Trained weights do not get smaller; deflating them would only take time.
            compress = path.suffix != ".safetensors"
            info.compress_type = zipfile.ZIP_DEFLATED if compress else zipfile.ZIP_STORED
            info.external_attr = _MODE
            info.create_system = 3
            info.file_size = path.stat().st_size
            with path.open("rb") as source, archive.open(info, "w") as entry:
                for chunk in hold.check_between_chunks(iter(lambda file=source: file.read(1 << 20), b"")):
                    entry.write(chunk)


def _verify_manifest(folder: Path, kind: Kinds) -> Manifest:
    try:
        manifest = read_manifest(folder)
    except (FileNotFoundError, ValueError) as error:
        raise DamagedFiles("the trainer left no manifest that can be read") from error
    present = {entry.path for entry in checked_entries(manifest, under=f"{OUTPUT_FOLDER}/")}
    required_paths = (*_REQUIRED, *(f"{_KINDS[kind].folder}/{name}" for name in _KINDS[kind].files))
    problems = [f"{path} is not in the manifest" for path in required_paths if path not in present]
    problems += manifest.verify_files(folder)
    if problems:
        raise DamagedFiles("; ".join(problems[:5]))
    return manifest


def _store_files(
    context: Context, lease: Lease, folder: Path, manifest: Manifest, prefix: str, kind: _ResultLayout, zip_name: str
) -> dict[str, PublishedFile]:
    """Store all files, the manifest last, and return those that users get, by the names of the API."""
    lease.check()
    inside = f"{kind.folder}/"
    archive = folder / OUTPUT_FOLDER / f"{kind.artifact}.zip"
    result = [entry.path for entry in manifest.files if entry.path.startswith(inside)]
    write_zip(archive, ((path.removeprefix(inside), folder / path) for path in result), lease)
    entries = (*manifest.files, *hash_files(folder, [archive]))
    root = prefix.removesuffix(OUTPUT_FOLDER)
    for entry in entries:
        # Every upload is hashed again on its way and compared with the manifest, which catches a file that changed
        # after the verification.
        upload_entry(context.storage, f"{root}{entry.path}", folder / entry.path, entry, lease)
    data = (folder / MANIFEST_NAME).read_bytes()
    key = f"{prefix}/{MANIFEST_NAME}"
    # The manifest comes last and must be new: its existence marks the folder as complete.
    was_created = lease.retry_while_storage_is_down(lambda: context.storage.put_if_absent(key, data))
    # It may exist already: an earlier try stored it and its answer got lost. No other attempt has this token.
    if not was_created and b"".join(context.storage.read(key)) != data:
        raise DamagedFiles("another result was stored under this attempt's name")
    by_path = {entry.path: entry for entry in entries}
    archive_entry = by_path[f"{OUTPUT_FOLDER}/{archive.name}"]
    return {
        kind.artifact: _make_published_file(archive_entry, root, kind.artifact, zip_name, "application/zip"),
        "report.json": _make_published_file(
            by_path[REPORT_JSON], root, "report.json", "report.json", "application/json"
        ),
        "report.html": _make_published_file(
            by_path[REPORT_HTML], root, "report.html", "report.html", "text/html; charset=utf-8"
        ),
        "csv": _make_published_file(by_path[RESULT_CSV], root, "csv", Path(RESULT_CSV).name, "text/csv"),
    }


def _make_published_file(entry: FileEntry, root: str, name: str, filename: str, media_type: str) -> PublishedFile:
    return PublishedFile(
        name=name,
        filename=filename,
        media_type=media_type,
        blob_key=f"{root}{entry.path}",
        bytes=entry.bytes,
        sha256=entry.sha256,
    )


def _record_success(
    context: Context,
    job: JobRow,
    lease: Lease,
    manifest: Manifest,
    prefix: str,
    files: dict[str, PublishedFile],
) -> None:
    kind = methods.load_method(job.method).hyperparameters.result_kind
    own_manifest = f"{_KINDS[kind].folder}/{MANIFEST_NAME}"
    # No lease renewal here: `complete_job` checks the token itself, and an expired lease that nobody has taken may
    # still publish.
    with context.db.write() as session:
        lifecycle.complete_job(
            session,
            job,
            token=lease.token,
            trained_tokens=manifest.trained_tokens,
            train_seconds=manifest.facts.get("train_seconds"),
            ended_by=manifest.facts.get("ended_by"),
            kind=kind,
            blob_prefix=f"{prefix}/{Path(_KINDS[kind].folder).name}",
            size=sum(entry.bytes for entry in manifest.files if entry.path.startswith(f"{_KINDS[kind].folder}/")),
            manifest_sha256=next(entry.sha256 for entry in manifest.files if entry.path == own_manifest),
            result_csv=files["csv"],
            artifacts=[file for name, file in files.items() if name != "csv"],
        )


def _has_succeeded(context: Context, lease: Lease) -> bool | None:
    """Return whether an earlier try succeeded although its answer got lost. None if the database does not answer."""
    try:
        with context.db.read() as session:
            job = repository.by_id(session, lease.job_id)
    except Unavailable:
        return None
    return job is not None and job.state == JobState.SUCCEEDED and job.lease_token == lease.token


def _discard_files(context: Context, prefix: str) -> None:
    try:
        context.storage.delete_prefix(prefix)
    except StorageError as error:
        log.warning("What was stored under %s could not be removed: %s", prefix, error)


def _explain_failure(error: DamagedFiles | StorageError) -> AttemptFailed:
    if isinstance(error, DamagedFiles):
        return AttemptFailed("result_damaged", f"The trainer's result cannot be published: {error}.")
    code = "storage_full" if isinstance(error, StorageFull) else "storage_unavailable"
    return AttemptFailed(code, str(error))
