"""Files between the work folder and the blob store: streamed, hashed, and given up as soon as the hold is lost."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from service.staging.hold import WorkHold
from service.storage import Storage, StoredBlob
from service.storage.base import CHUNK_SIZE
from service.storage.keys import is_key
from trainer.contract.result import MANIFEST_NAME, FileEntry, Manifest


class DamagedFiles(Exception):
    """Files are not what their manifest states; the message is a sentence."""


def job_prefix(job_id: str, token: int) -> str:
    """Return the folder of one attempt's blobs."""
    return f"jobs/{job_id}/attempt-{token}"


def download_blob(storage: Storage, key: str, target: Path, hold: WorkHold) -> str:
    """Write a blob to a file and return its SHA-256. Raises BlobNotFound, StorageUnavailable, OSError, LeaseLost."""
    return hold.retry_while_storage_is_down(lambda: _download_once(storage, key, target, hold))


def upload_entry(storage: Storage, key: str, source: Path, entry: FileEntry, hold: WorkHold) -> StoredBlob:
    """Store a file of a manifest. Raises DamagedFiles if other bytes were stored than the manifest states."""
    stored_blob = hold.retry_while_storage_is_down(
        lambda: storage.put(key, hold.check_between_chunks(_file_chunks(source)))
    )
    if (stored_blob.sha256, stored_blob.bytes) != (entry.sha256, entry.bytes):
        raise DamagedFiles(f"{entry.path} does not have the SHA-256 and size that the manifest states")
    return stored_blob


def checked_entries(manifest: Manifest, *, under: str = "") -> tuple[FileEntry, ...]:
    """Return a manifest's files. Raises DamagedFiles for a path that leaves `under`, or that no blob key can hold."""
    for entry in manifest.files:
        path = PurePosixPath(entry.path)
        # A manifest is input: `../` or an absolute path in it must not write outside the folder.
        if not is_key(entry.path) or str(path) != entry.path or not entry.path.startswith(under):
            raise DamagedFiles(f"the manifest names {entry.path[:200]!r}, which is not a file of a result")
    return manifest.files


def fetch_folder(
    storage: Storage,
    prefix: str,
    manifest_sha256: str | None,
    target: Path,
    hold: WorkHold,
    *,
    is_needed: Callable[[str], bool] = lambda _: True,
) -> Manifest:
    """Fetch a folder that was stored with its manifest, verifying both, and return the manifest.

    Files that are not needed, by their paths, are left out.
    Raises DamagedFiles, BlobNotFound, StorageUnavailable, OSError or LeaseLost.
    """
    target.mkdir(mode=0o700)
    path = target / MANIFEST_NAME
    manifest_digest = download_blob(storage, f"{prefix}/{MANIFEST_NAME}", path, hold)
    # The database vouches for the manifest and the manifest for every file, so nobody who can write to the bucket
    # alone can change a model.
    if manifest_sha256 is not None and manifest_digest != manifest_sha256:
        raise DamagedFiles("its manifest does not have the SHA-256 that the database states")
    try:
        manifest = Manifest.model_validate_json(path.read_bytes())
    except ValueError as error:
        raise DamagedFiles("its manifest cannot be read") from error
    for entry in filter(lambda entry: is_needed(entry.path), checked_entries(manifest)):
        file = target / entry.path
        file.parent.mkdir(parents=True, exist_ok=True)
        if download_blob(storage, f"{prefix}/{entry.path}", file, hold) != entry.sha256:
            raise DamagedFiles(f"{entry.path} does not have the SHA-256 that the manifest states")
    return manifest


class StoredFolder(NamedTuple):
    """The SHA-256 of the manifest of a folder that was stored, and the bytes of all its files."""

    manifest_sha256: str
    bytes: int


def store_folder(storage: Storage, folder: Path, prefix: str, hold: WorkHold) -> StoredFolder:
    """Store a folder, its manifest last.

    Raises DamagedFiles, StorageFull, StorageUnavailable, OSError or LeaseLost.
    """
    data = (folder / MANIFEST_NAME).read_bytes()
    try:
        manifest = Manifest.model_validate_json(data)
    except ValueError as error:
        raise DamagedFiles("its manifest cannot be read") from error
    for entry in checked_entries(manifest):
        # Before the manifest: a folder without one is incomplete, whatever interrupted the upload.
        upload_entry(storage, f"{prefix}/{entry.path}", folder / entry.path, entry, hold)
    stored_blob = hold.retry_while_storage_is_down(lambda: storage.put(f"{prefix}/{MANIFEST_NAME}", [data]))
    return StoredFolder(stored_blob.sha256, stored_blob.bytes + sum(entry.bytes for entry in manifest.files))


def _download_once(storage: Storage, key: str, target: Path, hold: WorkHold) -> str:
    # A new hash for each try: a retry begins with the first byte.
    digest = hashlib.sha256()
    with closing(storage.read(key)) as chunks, target.open("wb") as file:
        for chunk in hold.check_between_chunks(chunks):
            digest.update(chunk)
            file.write(chunk)
    return digest.hexdigest()


def _file_chunks(source: Path) -> Iterator[bytes]:
    with source.open("rb") as file:
        while chunk := file.read(CHUNK_SIZE):
            yield chunk
