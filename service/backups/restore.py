"""An empty folder filled from a backup: checked as a whole beside it, then put in its place."""

from __future__ import annotations

import os
import shutil
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from pathlib import Path

from service import migrations
from service.backups.archive import BLOBS, DATABASE, Advance, BackupManifest
from service.backups.archive_reader import ArchiveReader, open_archive
from service.backups.errors import BackupRefused
from service.backups.snapshot import check_snapshot
from service.storage.local import LocalStorage

_BLOCK = 4096
"""Bytes that a disk may round each file up to."""


def restore_backup(path: Path, data: Path, advance: Advance = lambda _bytes: None) -> BackupManifest:
    """Fill the folder `data`, which is absent or empty, from a backup. What fails leaves it as it was.

    Nothing is written before all names and sizes agree with the manifest and the disk has room for them.
    Raises BackupRefused, BackupCorrupt, StorageError or OSError.
    """
    if data.exists() and (not data.is_dir() or any(data.iterdir())):
        raise BackupRefused(f"{data} is not an empty folder: name an empty one, or a new one, by --data.")
    with open_archive(path) as archive:
        _require_known(path, archive.manifest)
        _require_room(archive, data)
        with _staging_folder(data) as staging:
            _fill_folder(archive, staging, advance)
            check_snapshot(staging / DATABASE, archive.manifest.schema_revision, source=path)
            if data.exists():
                data.rmdir()
            staging.rename(data)
    return archive.manifest


def _require_known(path: Path, manifest: BackupManifest) -> None:
    if not migrations.knows_revision(manifest.schema_revision):
        raise BackupRefused(
            f"{path} was made by release {manifest.version}, with the schema {manifest.schema_revision}, newer than "
            "this release's: restore it by that release or a later one."
        )


def _require_room(archive: ArchiveReader, data: Path) -> None:
    needed_bytes = archive.total_bytes + _BLOCK * len(archive.manifest.files)
    there = next(folder for folder in (data, *data.absolute().parents) if folder.exists())
    free = shutil.disk_usage(there).free
    if needed_bytes > free:
        raise BackupRefused(
            f"{data} has no room for the backup: it needs {needed_bytes} bytes, and the disk has {free} free. "
            "Free some space, or name a folder on another disk by --data."
        )


@contextmanager
def _staging_folder(data: Path) -> Generator[Path]:
    """Give a folder beside `data`; what fails inside leaves neither it nor a parent that was made for it."""
    new_parents = [parent for parent in data.absolute().parents if not parent.exists()]
    # Beside the target, so that the last step is a rename on the same disk.
    staging = data.with_name(f".{data.name}.{os.getpid()}.restoring")
    data.parent.mkdir(parents=True, exist_ok=True)
    try:
        staging.mkdir(mode=0o700)
        yield staging
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        for parent in new_parents:
            if not any(parent.iterdir()):
                parent.rmdir()
        raise


def _fill_folder(archive: ArchiveReader, folder: Path, advance: Advance) -> None:
    storage = LocalStorage(folder / BLOBS)

    def place_file(name: str, chunks: Iterable[bytes]) -> None:
        if name.startswith(BLOBS):
            storage.put(name.removeprefix(BLOBS), chunks)
            return
        descriptor = os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.writelines(chunks)
            file.flush()
            os.fsync(file.fileno())

    archive.unpack_files(place_file, advance)
