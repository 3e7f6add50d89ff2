"""A backup of a running service: the blobs, then the database as it is at one moment, then the blobs that are new.

A blob is written before the row that names it and deleted after that row is gone. So whatever the snapshot names was
copied before, or is there still; only one that came and went during the last pass can be missing, and then a new
snapshot names it no more.
"""

from __future__ import annotations

import sqlite3
import tempfile
import time
from collections.abc import Generator, Iterable
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import select
from sqlalchemy.orm import Session

from service import migrations
from service.backups.archive import BLOBS, CLIENT, DATABASE, SECRET, Advance, ArchiveWriter, BackupManifest, new_archive
from service.backups.errors import BackupRefused
from service.kit.db import Base, Database
from service.kit.settings import Settings
from service.kit.version import VERSION
from service.storage import BlobNotFound, Storage, open_storage

_TRIES = 3
_PATIENCE = 30.0
"""Seconds to wait for the database's lock."""


@dataclass(frozen=True)
class BackupSummary:
    """What a backup came to. `missing` are keys that the database names and the store had lost before."""

    blobs: int
    bytes: int
    missing: tuple[str, ...]


def require_embedded(settings: Settings) -> None:
    """Raise BackupRefused unless database and blobs are in the data folder."""
    for name, value in (("BURNISH_DATABASE_URL", settings.database_url), ("BURNISH_STORAGE_URL", settings.storage_url)):
        if value is not None:
            raise BackupRefused(
                f"{name} is set: this command is for the embedded set-up, with its database and blobs in the data "
                "folder. Back up the database by its own tools (pg_dump) first, then the bucket."
            )


def total_bytes(settings: Settings) -> int:
    """Return about how many bytes a backup will have."""
    blobs = sum(blob.bytes for blob in open_storage(settings.storage).list(""))
    return blobs + (settings.data / DATABASE).stat().st_size


def make_backup(settings: Settings, path: Path, advance: Advance = lambda _bytes: None) -> BackupSummary:
    """Write a backup to `path`, which does not exist. The service may run meanwhile.

    Raises BackupRefused, BackupCorrupt, StorageError, Unavailable, SettingsError (another schema) or OSError.
    """
    require_embedded(settings)
    if not (settings.data / DATABASE).exists():
        raise BackupRefused(f"There is no database in {settings.data}: name the data folder with --data.")
    if path.exists():
        raise BackupRefused(f"{path} exists already: name another file.")
    migrations.check_schema(settings)
    storage = open_storage(settings.storage)
    with _snapshot_folder(path.parent) as folder, new_archive(path, advance) as archive:
        absent_blobs = _add_consistent_snapshot(archive, storage, settings.data / DATABASE, folder / DATABASE)
        archive.add_file(DATABASE, folder / DATABASE)
        for name in (SECRET, CLIENT):
            if (settings.data / name).exists():
                archive.add_file(name, settings.data / name)
        archive.add_manifest(_make_manifest(archive))
    blobs = sum(name.startswith(BLOBS) for name in archive.files)
    return BackupSummary(blobs, path.stat().st_size, absent_blobs)


def _make_manifest(archive: ArchiveWriter) -> BackupManifest:
    now = int(time.time())
    return BackupManifest(
        version=VERSION, schema_revision=migrations.head_revision(), created_at=now, files=archive.files
    )


@contextmanager
def _snapshot_folder(beside: Path) -> Generator[Path]:
    """Make a folder for the snapshot on the disk that has room for the backup."""
    with tempfile.TemporaryDirectory(dir=beside, prefix=".backup-") as name:
        yield Path(name)


def _add_consistent_snapshot(
    archive: ArchiveWriter, storage: Storage, database: Path, snapshot: Path
) -> tuple[str, ...]:
    """Make a snapshot with all its blobs in the archive; return the keys that none of `_TRIES` could find."""
    absent_blobs: tuple[str, ...] = ()
    # Most blobs are copied before the first snapshot, so that few can be deleted between a snapshot and the copy of
    # its rest.
    _copy_new(archive, storage)
    for _ in range(_TRIES):
        snapshot.unlink(missing_ok=True)
        # Blobs after the snapshot: a row's blob is stored before the row, so every blob that the snapshot names was
        # there at its time.
        _take_snapshot(database, snapshot)
        _copy_new(archive, storage)
        absent_blobs = tuple(sorted(_find_absent_blobs(snapshot, archive.files)))
        if not absent_blobs:
            break
    return absent_blobs


def _take_snapshot(source: Path, snapshot: Path) -> None:
    """Write the database as it is at one moment, without holding up those who write."""
    with closing(sqlite3.connect(source, timeout=_PATIENCE)) as connection:
        # One read transaction: in WAL mode writers continue meanwhile.
        connection.execute("VACUUM INTO ?", (str(snapshot),))


def _copy_new(archive: ArchiveWriter, storage: Storage) -> None:
    for blob in storage.list(""):
        name = BLOBS + blob.key
        if name in archive.files:
            continue
        try:
            chunks = storage.read(blob.key)
        except BlobNotFound:
            continue  # deleted since the listing: no row names it any more
        archive.add_chunks(name, chunks, blob.bytes)


def _find_absent_blobs(snapshot: Path, files: Iterable[str]) -> set[str]:
    """Return the keys and prefixes that rows name and no file of the archive has."""
    keys = {name.removeprefix(BLOBS) for name in files if name.startswith(BLOBS)}
    folders = {key[:end] for key in keys for end in _slash_positions(key)}
    database = Database(f"sqlite:///{snapshot}")
    try:
        with database.read() as session:
            blob_keys, prefixes = _find_named_blobs(session, "blob_key"), _find_named_blobs(session, "blob_prefix")
    finally:
        database.close()
    return (blob_keys - keys) | {prefix for prefix in prefixes if prefix.rstrip("/") not in folders}


def _find_named_blobs(session: Session, column: str) -> set[str]:
    tables = [table for table in Base.metadata.sorted_tables if column in table.columns]
    return {value for table in tables for value in session.scalars(select(table.columns[column])) if value}


def _slash_positions(key: str) -> Iterable[int]:
    return (place for place, letter in enumerate(key) if letter == "/")
