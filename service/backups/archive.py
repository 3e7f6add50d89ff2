"""The form of a backup: a tar of plain files, with a manifest of all hashes as the last one.

burnish.db      a snapshot of the database
secret.key      what keys and webhook secrets are kept under
client.json     where clients on this machine find the service
blobs/KEY       each blob
manifest.json   `Manifest`
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
from typing import IO

from pydantic import BaseModel, ConfigDict, ValidationError

from service.backups.errors import BackupCorrupt
from service.storage.base import CHUNK_SIZE
from service.storage.keys import is_key

DATABASE = "burnish.db"
SECRET = "secret.key"  # noqa: S105 - a file's name
CLIENT = "client.json"
BLOBS = "blobs/"
_MANIFEST = "manifest.json"
_MAX_MANIFEST = 1 << 30
_FORM = 1

Advance = Callable[[int], None]
"""Called with each number of bytes that have passed."""


class Entry(BaseModel):
    """Size in bytes and SHA-256 (lowercase hex) of one file."""

    model_config = ConfigDict(extra="forbid")

    bytes: int
    sha256: str


class Manifest(BaseModel):
    """What a backup holds, and which release and schema it is of."""

    model_config = ConfigDict(extra="forbid")

    form: int = _FORM
    version: str
    schema_revision: str
    created_at: int
    files: dict[str, Entry]


class ArchiveWriter:
    """Writes a backup; `finish` adds the manifest."""

    def __init__(self, tar: tarfile.TarFile, advance: Advance) -> None:
        self._tar = tar
        self._advance = advance
        self.files: dict[str, Entry] = {}

    def add(self, name: str, chunks: Iterable[bytes], size: int) -> None:
        """Add a file of exactly `size` bytes. Raises BackupCorrupt where the chunks are of another size."""
        source = _Source(chunks, self._advance)
        try:
            self._tar.addfile(_member(name, size), source)
        except OSError as error:
            if error.errno is not None:
                raise
            raise BackupCorrupt(f"{name} has fewer than its {size} bytes: the blob store lost some of it.") from error
        self.files[name] = Entry(bytes=size, sha256=source.digest.hexdigest())

    def add_file(self, name: str, path: Path) -> None:
        """Add a file that does not change."""
        with path.open("rb") as file:
            self.add(name, iter(lambda: file.read(CHUNK_SIZE), b""), path.stat().st_size)

    def finish(self, manifest: Manifest) -> None:
        """Add the manifest: without it a backup is not whole."""
        data = manifest.model_dump_json(indent=1).encode()
        self._tar.addfile(_member(_MANIFEST, len(data)), io.BytesIO(data))


class _Source(io.RawIOBase):
    """Chunks as a stream that hashes what is read of it."""

    def __init__(self, chunks: Iterable[bytes], advance: Advance) -> None:
        self._chunks = iter(chunks)
        self._advance = advance
        self._rest = b""
        self.digest = hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        """Return `size` bytes, fewer at the end."""
        parts, missing = [self._rest], size - len(self._rest)
        while missing > 0 and (chunk := next(self._chunks, b"")):
            parts.append(chunk)
            missing -= len(chunk)
        joined = b"".join(parts)
        found, self._rest = joined[:size], joined[size:]
        self.digest.update(found)
        self._advance(len(found))
        return found


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


def unpack(path: Path, place: Callable[[str, Iterable[bytes]], None], advance: Advance) -> Manifest:
    """Give each file of a backup to `place`, in the archive's order, and return the manifest that they agree with.

    Raises BackupCorrupt: then what was placed is not to be trusted.
    """
    seen: dict[str, Entry] = {}
    manifest: Manifest | None = None
    try:
        with tarfile.open(path, mode="r:") as tar:
            for member in tar:
                if manifest is not None or not member.isreg() or not (_is_name(member.name) or _is_manifest(member)):
                    raise BackupCorrupt(f"{path} is no backup of Burnish: it holds {member.name[:200]!r}.")
                source = tar.extractfile(member)
                assert source is not None
                if _is_manifest(member):
                    manifest = Manifest.model_validate_json(source.read())
                else:
                    seen[member.name] = _place(member.name, source, place, advance)
    except (tarfile.TarError, ValidationError) as error:
        reason = str(error).splitlines()[0]
        raise BackupCorrupt(f"{path} is no whole backup of Burnish: {reason}. Take another copy of it.") from error
    return _agreed(path, manifest, seen)


def _place(name: str, source: IO[bytes], place: Callable[[str, Iterable[bytes]], None], advance: Advance) -> Entry:
    digest, size = hashlib.sha256(), 0

    def chunks() -> Generator[bytes]:
        nonlocal size
        while chunk := source.read(CHUNK_SIZE):
            digest.update(chunk)
            size += len(chunk)
            advance(len(chunk))
            yield chunk

    place(name, chunks())
    return Entry(bytes=size, sha256=digest.hexdigest())


def _agreed(path: Path, manifest: Manifest | None, seen: dict[str, Entry]) -> Manifest:
    if manifest is None:
        raise BackupCorrupt(f"{path} is cut off: its end with the manifest is missing. Take another copy of it.")
    if manifest.form != _FORM:
        raise BackupCorrupt(
            f"{path} has the form {manifest.form}; this release reads {_FORM}. Use release {manifest.version}."
        )
    wrong = sorted(name for name in manifest.files.keys() | seen.keys() if manifest.files.get(name) != seen.get(name))
    if wrong:
        raise BackupCorrupt(
            f"{path} is damaged: {wrong[0]} is not what the manifest says ({len(wrong)} such files). "
            "Take another copy of it."
        )
    return manifest


def _is_name(name: str) -> bool:
    return name in (DATABASE, SECRET, CLIENT) or (name.startswith(BLOBS) and is_key(name.removeprefix(BLOBS)))


def _is_manifest(member: tarfile.TarInfo) -> bool:
    return member.name == _MANIFEST and member.size <= _MAX_MANIFEST


def _member(name: str, size: int) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.size, member.mode = size, stat.S_IRUSR | stat.S_IWUSR
    return member


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
