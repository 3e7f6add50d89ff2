"""Lays out the trainer's folder: `job.json`, `data/`, `base/`; `start/`, `reward/` and `checkpoint/` where needed."""

from __future__ import annotations

import fcntl
import logging
import os
import shutil
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from datetime import UTC, date, datetime
from pathlib import Path
from typing import cast

from burnish.datasets import is_text
from burnish.datasets.errors import UnreadableError
from service.context import Context
from service.files import repository as files
from service.files.content import limits_of, packing_of_row, read_local
from service.jobs import methods, results_repository
from service.kit import tracing
from service.staging.errors import AttemptFailed, JobFailedForGood
from service.staging.hold import WorkHold
from service.staging.inputs import Bases, fetch_reward, fetch_start
from service.staging.transfer import DamagedFiles, download_blob, fetch_folder
from service.storage.errors import BlobNotFound, StorageError
from service.tables.files import FileRow
from service.tables.jobs import JobCheckpointRow, JobRow
from trainer.contract.job import Budget, DataFile, JobSpec, LineageEntry

log = logging.getLogger(__name__)

_TRAINING = "data/train"
_VALIDATION = "data/validation"
_CHECKPOINT = "checkpoint"


@contextmanager
def work_folder(root: Path, job_id: str, token: int) -> Generator[Path, None, None]:
    """Make the folder of one attempt and remove it at the end. A lock on it shows `sweep_folders` that it is in use."""
    folder = root / f"{job_id}-{token}"
    root.mkdir(mode=0o700, parents=True, exist_ok=True)
    # An attempt of the same number cannot be running: tokens only rise. What lies here was left by a restored database
    # or a crash.
    shutil.rmtree(folder, ignore_errors=True)
    while (descriptor := _make_locked_folder(folder)) is None:
        pass  # a sweep came between; it took what was not locked yet
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(descriptor)


def _make_locked_folder(folder: Path) -> int | None:
    """Make the folder and lock it. None if a sweep has removed it meanwhile."""
    folder.mkdir(mode=0o700)
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except FileNotFoundError:
        return None
    # The lock marks the folder as in use. It ends with this process, however that ends, so a sweep needs no list of
    # the living.
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    with suppress(FileNotFoundError):
        # Between the open and the lock a sweep may have deleted the folder: the lock would then be on an inode without
        # a name.
        if folder.stat().st_ino == os.fstat(descriptor).st_ino:
            return descriptor
    os.close(descriptor)
    return None


def sweep_folders(root: Path) -> int:
    """Remove the folders that killed workers of this machine left; return how many there were."""
    count = 0
    root.mkdir(mode=0o700, parents=True, exist_ok=True)
    for folder in [path for path in root.iterdir() if path.is_dir()]:
        try:
            descriptor = os.open(folder, os.O_RDONLY)
        except FileNotFoundError:
            continue  # its attempt has ended
        try:
            with suppress(BlockingIOError):
                # Taken without waiting: a folder that is locked belongs to a living worker.
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
                count += 1
        finally:
            os.close(descriptor)
    return count


@tracing.trace_calls("stage")
def stage_job(context: Context, job: JobRow, hold: WorkHold, *, folder: Path, bases: Bases, since: float) -> JobSpec:
    """Fill the folder and return what went into `job.json`; `since` is `time.monotonic()` of the attempt's beginning.

    Raises JobFailedForGood, AttemptFailed, LeaseLost, and OSError if the disk is full.
    """
    base, base_folder = bases(job.base)
    hold.check_all()
    if base_folder is not None:
        (folder / "base").symlink_to(base_folder, target_is_directory=True)
    (folder / "data").mkdir()
    training = _fetch_file(context, job, job.training_file, "training_file", folder, _TRAINING, hold)
    validation = None
    if job.validation_file is not None:
        validation = _fetch_file(context, job, job.validation_file, "validation_file", folder, _VALIDATION, hold)
    spec = JobSpec(
        job_id=job.id,
        model_name=job.model_name,
        base=base,
        method=methods.load_method(job.method),
        start=fetch_start(context, job, hold, folder / "start"),
        reward=fetch_reward(context, job, hold, folder / "reward", bases),
        lineage=tuple(LineageEntry.model_validate(entry) for entry in job.lineage),
        training=training,
        validation=validation,
        seed=job.seed,
        template_date=_creation_day(job),
        budget=None if job.budget is None else Budget.model_validate(job.budget),
        # Staging counts as well: the budget in minutes is one of the job's whole running time.
        used_seconds=max(0.0, job.running_seconds + time.monotonic() - since),
        python_graders=context.settings.python_graders == "on",
        resume=_fetch_checkpoint(context, job.id, folder / _CHECKPOINT, hold),
    )
    hold.check_all()
    (folder / "job.json").write_text(spec.model_dump_json(indent=1), encoding="utf-8")
    return spec


def uses_gpu(job: JobRow) -> bool:
    """Whether the job's trainer may see the worker's GPU."""
    return (job.resources or {}).get("gpus") != 0


def _fetch_file(
    context: Context, job: JobRow, file_id: str, param: str, folder: Path, stem: str, hold: WorkHold
) -> DataFile:
    def look_up_file() -> FileRow | None:
        with context.db.read() as session:
            return files.get_project_file(session, job.project_id, file_id)

    file = hold.retry_while_database_is_down(look_up_file)
    if file is None:
        raise _file_deleted(file_id, param)
    path = stem + (".txt" if is_text(file.filename, packing_of_row(file)) else ".jsonl")
    upload_path = folder / (path if file.packing == "none" else f"{stem}.{file.packing}")
    try:
        sha256 = download_blob(context.storage, file.blob_key, upload_path, hold)
    except BlobNotFound as error:
        raise _file_deleted(file_id, param) from error
    except StorageError as error:
        raise AttemptFailed("storage_unavailable", str(error)) from error
    if sha256 != file.sha256:
        raise AttemptFailed(
            "file_damaged",
            f"The stored bytes of {file.filename} ({file_id}) do not have the SHA-256 of its upload. "
            "Upload the file again and create a new job.",
            param,
        )
    if upload_path != folder / path:
        _unpack_file(context, file, param, upload_path, folder / path, hold)
    return DataFile(path=path, filename=file.filename, sha256=file.sha256)


def _unpack_file(context: Context, file: FileRow, param: str, source: Path, target: Path, hold: WorkHold) -> None:
    """Write what a file holds, as the trainer reads it, in place of the file."""
    try:
        with source.open("rb") as packed_file, target.open("wb") as plain:
            for piece in hold.check_between_chunks(
                read_local(packed_file, packing_of_row(file), limits_of(context.settings))
            ):
                plain.write(piece)
    except UnreadableError as error:
        sentence = f"The file {file.filename} ({file.id}) cannot be read: {error}."
        raise JobFailedForGood("file_unreadable", sentence, param) from error
    source.unlink()


def _file_deleted(file_id: str, param: str) -> JobFailedForGood:
    return JobFailedForGood(
        "file_deleted",
        f"The file {file_id} was deleted before the job had read it. Upload it again and create a new job.",
        param,
    )


def _fetch_checkpoint(context: Context, job_id: str, target: Path, hold: WorkHold) -> bool:
    """Fetch the newest checkpoint that is whole. False if there is none."""
    before: int | None = None

    def look_up_checkpoint() -> JobCheckpointRow | None:
        with context.db.read() as session:
            return results_repository.latest_checkpoint(session, job_id, before=before)

    while (checkpoint := hold.retry_while_database_is_down(look_up_checkpoint)) is not None:
        try:
            fetch_folder(context.storage, checkpoint.blob_prefix, checkpoint.manifest_sha256, target, hold)
        except (DamagedFiles, BlobNotFound) as error:
            log.warning("%s: the checkpoint at step %d is damaged: %s", job_id, checkpoint.step, error)
            shutil.rmtree(target, ignore_errors=True)
            sentence = f"The checkpoint at step {checkpoint.step} is damaged and cannot be used"
            hold.report_progress(sentence, f"damaged:{checkpoint.step}", level="warn")
            before = checkpoint.step
        except StorageError as error:
            raise AttemptFailed("storage_unavailable", str(error)) from error
        else:
            return True
    if before is not None:
        hold.report_progress(
            "No older checkpoint is left: training starts from the beginning", "no-checkpoint", level="warn"
        )
    return False


def _creation_day(job: JobRow) -> date:
    """Return the day that templates take for today; of a preview, whose job was never created, it is this one."""
    created_at = cast("float | None", job.created_at)
    return datetime.fromtimestamp(time.time() if created_at is None else created_at, UTC).date()
