"""An empty folder filled from a backup: checked as a whole beside it, then put in its place."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from pathlib import Path

from sqlalchemy import text

from service import migrations
from service.backups.archive import BLOBS, DATABASE, Advance, Manifest, unpack
from service.backups.errors import BackupCorrupt, BackupRefused
from service.kit.db import Database
from service.storage.local import LocalStorage


def restore_backup(path: Path, data: Path, advance: Advance = lambda _bytes: None) -> Manifest:
    """Fill the folder `data`, which is absent or empty, from a backup. What fails leaves it as it was.

    Raises BackupRefused, BackupCorrupt, StorageError or OSError.
    """
    if data.exists() and (not data.is_dir() or any(data.iterdir())):
        raise BackupRefused(f"{data} is not an empty folder: name an empty one, or a new one, by --data.")
    data.parent.mkdir(parents=True, exist_ok=True)
    staging = data.with_name(f".{data.name}.{os.getpid()}.restoring")
    staging.mkdir(mode=0o700)
    try:
        manifest = _fill(path, staging, advance)
        _check(path, staging, manifest)
        if data.exists():
            data.rmdir()
        staging.rename(data)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return manifest


def _fill(path: Path, folder: Path, advance: Advance) -> Manifest:
    storage = LocalStorage(folder / BLOBS)

    def place(name: str, chunks: Iterable[bytes]) -> None:
        if name.startswith(BLOBS):
            storage.put(name.removeprefix(BLOBS), chunks)
            return
        descriptor = os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.writelines(chunks)
            file.flush()
            os.fsync(file.fileno())

    return unpack(path, place, advance)


def _check(path: Path, folder: Path, manifest: Manifest) -> None:
    """Raise unless the database is sound, and of a release that this one knows."""
    if not migrations.knows(manifest.schema_revision):
        raise BackupRefused(
            f"{path} was made by release {manifest.version}, whose schema {manifest.schema_revision} is newer than "
            "this release's: restore it by that release or a later one."
        )
    if DATABASE not in manifest.files:
        raise BackupCorrupt(f"{path} holds no database: it is no backup of a service.")
    database = Database(f"sqlite:///{folder / DATABASE}")
    try:
        with database.read() as session:
            problems = session.execute(text("PRAGMA integrity_check(1)")).scalar_one()
    finally:
        database.close()
    if problems != "ok":
        raise BackupCorrupt(f"The database in {path} is damaged: {problems}. Take another copy of it.")
