"""The form of a backup: a tar of plain files, with a manifest of all hashes as the last one.

burnish.db      a snapshot of the database
secret.key      what keys and webhook secrets are kept under
client.json     where clients on this machine find the service
blobs/KEY       each blob
manifest.json   `BackupManifest`
"""

from __future__ import annotations

import hashlib
import io
import os
import stat
import tarfile
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from service.backups.errors import BackupCorrupt
from service.storage.base import CHUNK_SIZE

DATABASE = "burnish.db"
SECRET = "secret.key"  # noqa: S105 - a file's name
CLIENT = "client.json"
BLOBS = "blobs/"
MANIFEST = "manifest.json"
FORM = 1

Advance = Callable[[int], None]
"""Called with each number of bytes that have passed."""


class BackupEntry(BaseModel):
    """Size in bytes and SHA-256 (lowercase hex) of one file."""

    model_config = ConfigDict(extra="forbid")

    bytes: int = Field(ge=0)
    sha256: str


class BackupManifest(BaseModel):
    """What a backup holds, and which release and schema it is of."""

    model_config = ConfigDict(extra="forbid")

    form: int = FORM
    version: str
    schema_revision: str
    created_at: int
    files: dict[str, BackupEntry]


class ArchiveWriter:
    """Writes a backup; `add_manifest` adds the manifest."""

    def __init__(self, tar: tarfile.TarFile, advance: Advance) -> None:
        self._tar = tar
        self._advance = advance
        self.files: dict[str, BackupEntry] = {}

    def add_chunks(self, name: str, chunks: Iterable[bytes], size: int) -> None:
        """Add a file of exactly `size` bytes. Raises BackupCorrupt if the chunks are of another size."""
        source = _HashedChunks(chunks, self._advance)
        try:
            self._tar.addfile(_make_member(name, size), source)
        except OSError as error:
            if error.errno is not None:
                raise
            raise BackupCorrupt(f"{name} has fewer than its {size} bytes: the blob store lost some of it.") from error
        self.files[name] = BackupEntry(bytes=size, sha256=source.digest.hexdigest())

    def add_file(self, name: str, path: Path) -> None:
        """Add a file that does not change."""
        with path.open("rb") as file:
            self.add_chunks(name, iter(lambda: file.read(CHUNK_SIZE), b""), path.stat().st_size)

    def add_manifest(self, manifest: BackupManifest) -> None:
        """Add the manifest: without it a backup is not whole."""
        data = manifest.model_dump_json(indent=1).encode()
        self._tar.addfile(_make_member(MANIFEST, len(data)), io.BytesIO(data))


class _HashedChunks(io.RawIOBase):
    """Chunks as a stream that hashes what is read of it."""

    def __init__(self, chunks: Iterable[bytes], advance: Advance) -> None:
        self._chunks = iter(chunks)
        self._advance = advance
        self._rest = b""
        self.digest = hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        """Return `size` bytes, fewer at the end."""
        parts, missing_bytes = [self._rest], size - len(self._rest)
        while missing_bytes > 0 and (chunk := next(self._chunks, b"")):
            parts.append(chunk)
            missing_bytes -= len(chunk)
        buffer = b"".join(parts)
        chunk_bytes, self._rest = buffer[:size], buffer[size:]
        self.digest.update(chunk_bytes)
        self._advance(len(chunk_bytes))
        return chunk_bytes


@contextmanager
def new_archive(path: Path, advance: Advance) -> Generator[ArchiveWriter]:
    """Open a backup to write, for its owner alone; at `path` it lies whole or not at all."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as tar:
                yield ArchiveWriter(tar, advance)
            file.flush()
            os.fsync(file.fileno())
        part.rename(path)
        _sync_folder(path.parent)
    finally:
        part.unlink(missing_ok=True)


def _make_member(name: str, size: int) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.size, member.mode = size, stat.S_IRUSR | stat.S_IWUSR
    return member


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
