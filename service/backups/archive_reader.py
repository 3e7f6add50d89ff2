"""A backup as it is read: first all headers against the manifest, without a byte written, then the bytes."""

from __future__ import annotations

import hashlib
import tarfile
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from pydantic import ValidationError

from service.backups.archive import (
    BLOBS,
    CLIENT,
    DATABASE,
    FORM,
    MANIFEST,
    SECRET,
    Advance,
    BackupEntry,
    BackupManifest,
)
from service.backups.errors import BackupCorrupt, BackupRefused
from service.storage.base import CHUNK_SIZE
from service.storage.keys import is_key

_EXTENSIONS = {"path", "size"}
"""The extended headers that a backup has: long names, and sizes from 8 GiB."""
_MAX_EXTENSION = 4096
_MAX_ENTRY = 2048
"""Bytes of the manifest for one file, with a name of up to 900 letters."""

Place = Callable[[str, Iterable[bytes]], None]
"""Called with the name and the bytes of each file."""


class _BackupHeader(tarfile.TarInfo):
    """A header of one of the two kinds that a backup is written with: a plain file, or extended names and sizes.

    Every other feature of tar (sparse files, links, devices, GNU's long names) is refused before tarfile acts on it.
    """

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> _BackupHeader:
        """Read one header. Raises BackupCorrupt."""
        header = super().frombuf(buf, encoding, errors)
        is_small_extension = header.type == tarfile.XHDTYPE and 0 <= header.size <= _MAX_EXTENSION
        if not is_small_extension and (header.type != tarfile.REGTYPE or header.size < 0):
            raise BackupCorrupt(_describe_foreign(header.name))
        return header


class ArchiveReader:
    """An open backup with headers that agree with its manifest."""

    def __init__(self, path: Path, file: IO[bytes]) -> None:
        self._path = path
        self._file = file
        self._length = file.seek(0, 2)
        self.manifest = self._check_headers()

    @property
    def total_bytes(self) -> int:
        """How many bytes the files have together."""
        return sum(entry.bytes for entry in self.manifest.files.values())

    def unpack_files(self, place: Place, advance: Advance) -> None:
        """Give each file to `place`, in the archive's order.

        Raises BackupCorrupt if a file's bytes are not those of the manifest: what was placed is not to be trusted.
        """
        for member, source in self._walk_members():
            if member.name == MANIFEST:
                continue
            try:
                entry = _place_file(member.name, source, place, advance)
            except tarfile.ReadError as error:  # the file became shorter since its headers were read
                raise self._make_damage_error(member.name) from error
            if entry != self.manifest.files.get(member.name):
                raise self._make_damage_error(member.name)

    def _check_headers(self) -> BackupManifest:
        sizes: dict[str, int] = {}
        manifest: BackupManifest | None = None
        for member, source in self._walk_members():
            if manifest is not None or member.name in sizes or not _is_name(member.name):
                raise BackupCorrupt(f"{self._path} {_describe_foreign(member.name)}")
            if member.name == MANIFEST:
                manifest = self._read_manifest(source, most=_MAX_ENTRY * (len(sizes) + 1))
            else:
                sizes[member.name] = member.size
        return self._require_agreement(manifest, sizes)

    def _walk_members(self) -> Generator[tuple[tarfile.TarInfo, IO[bytes]]]:
        self._file.seek(0)
        try:
            with tarfile.open(fileobj=self._file, mode="r:", tarinfo=_BackupHeader) as tar:
                while (member := tar.next()) is not None:
                    vars(tar)["members"] = []  # else it keeps the header of every member in memory
                    self._require_plain(member)
                    source = tar.extractfile(member)
                    assert source is not None
                    yield member, source
        except BackupCorrupt as error:
            whole = str(error)
            raise BackupCorrupt(whole if whole.startswith(str(self._path)) else f"{self._path} {whole}") from error
        except (tarfile.TarError, ValueError, RecursionError) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise BackupCorrupt(
                f"{self._path} is not a complete backup of Burnish: {reason}. Take another copy of it."
            ) from error

    def _require_plain(self, member: tarfile.TarInfo) -> None:
        """Raise unless the member's bytes are those that stand in the archive, one for one."""
        if not member.isreg() or member.issparse() or not member.pax_headers.keys() <= _EXTENSIONS:
            raise BackupCorrupt(_describe_foreign(member.name))
        if not 0 <= member.size <= self._length - member.offset_data:
            raise BackupCorrupt(f"is cut off inside {member.name[:200]!r}. Take another copy of it.")

    def _read_manifest(self, source: IO[bytes], *, most: int) -> BackupManifest:
        text = source.read(most + 1)
        if len(text) > most:
            raise BackupCorrupt(f"{self._path} is not a backup of Burnish: its {MANIFEST} lists more than is in it.")
        try:
            return BackupManifest.model_validate_json(text)
        except ValidationError as error:
            reason = str(error).splitlines()[0]
            raise BackupCorrupt(
                f"{self._path} is not a complete backup of Burnish: {reason}. Take another copy of it."
            ) from error

    def _require_agreement(self, manifest: BackupManifest | None, sizes: dict[str, int]) -> BackupManifest:
        if manifest is None:
            raise BackupCorrupt(
                f"{self._path} is cut off: its end with the manifest is missing. Take another copy of it."
            )
        if manifest.form != FORM:
            raise BackupCorrupt(
                f"{self._path} has the form {manifest.form}; this release reads {FORM}. Use release {manifest.version}."
            )
        listed_sizes = {name: entry.bytes for name, entry in manifest.files.items()}
        wrong = sorted(name for name in listed_sizes.keys() | sizes.keys() if listed_sizes.get(name) != sizes.get(name))
        if wrong:
            raise self._make_damage_error(wrong[0], count=len(wrong))
        if DATABASE not in sizes:
            raise BackupCorrupt(f"{self._path} holds no database: it is not a backup of a service.")
        folders = {name[:end] for name in sizes for end, letter in enumerate(name) if letter == "/"}
        for name in sizes.keys() & folders:
            raise BackupCorrupt(
                f"{self._path} is not a backup of Burnish: {name[:200]!r} is both a file and a folder in it."
            )
        return manifest

    def _make_damage_error(self, name: str, *, count: int = 1) -> BackupCorrupt:
        return BackupCorrupt(
            f"{self._path} is damaged: {name[:200]} is not what the manifest says ({count} such files). "
            "Take another copy of it."
        )


@contextmanager
def open_archive(path: Path) -> Generator[ArchiveReader]:
    """Open a backup. Raises BackupRefused, BackupCorrupt or OSError, and then nothing of it was unpacked."""
    if not path.is_file():
        raise BackupRefused(f"{path} is not a file on a disk: name the file that `burnish-server backup` wrote.")
    with path.open("rb") as file:
        yield ArchiveReader(path, file)


def _place_file(name: str, source: IO[bytes], place: Place, advance: Advance) -> BackupEntry:
    digest, size = hashlib.sha256(), 0

    def hash_chunks() -> Generator[bytes]:
        nonlocal size
        while chunk := source.read(CHUNK_SIZE):
            digest.update(chunk)
            size += len(chunk)
            advance(len(chunk))
            yield chunk

    place(name, hash_chunks())
    return BackupEntry(bytes=size, sha256=digest.hexdigest())


def _describe_foreign(name: str) -> str:
    return f"is not a backup of Burnish: it holds {name[:200]!r}."


def _is_name(name: str) -> bool:
    return name in (DATABASE, SECRET, CLIENT, MANIFEST) or (name.startswith(BLOBS) and is_key(name.removeprefix(BLOBS)))
