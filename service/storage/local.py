"""Blobs as files under one folder of this machine: `file:///folder`."""

from __future__ import annotations

import errno
import os
import secrets
import stat as modes
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path

from service.storage.base import CHUNK_SIZE, BlobStat, BlobWriter, StoredBlob
from service.storage.errors import (
    BlobNotFound,
    InvalidKey,
    InvalidStorageUrl,
    StorageFull,
    StorageUnavailable,
)
from service.storage.keys import TEMPORARY_FOLDER, check_key, check_range, folder_of, is_key
from service.storage.url import StorageUrl
from service.storage.writer import HashingWriter

_FULL = (errno.ENOSPC, errno.EDQUOT)
_PLACING_TRIES = 20
_BLOB_INSIDE = "a part of it is a blob, not a folder"


def open_from_url(url: StorageUrl) -> LocalStorage:
    """Open the folder of a `file:` URL. Raises InvalidStorageUrl."""
    path = url.decoded_path
    if url.host not in ("", "localhost") or url.query or url.fragment or path in ("", "/"):
        raise url.refusal("names no absolute folder of this machine")
    if "\0" in path:
        raise InvalidStorageUrl("The storage URL has a NUL in its path: remove it.")
    return LocalStorage(Path(path))


class LocalStorage:
    """A `Storage` in a folder. Files are 0600, folders 0700; a blob is written under `.tmp`, then renamed."""

    def __init__(self, root: Path) -> None:
        self._root = root.absolute()
        self._temporary = self._root / TEMPORARY_FOLDER
        try:
            self._temporary.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._root = self._root.resolve(strict=True)
        except OSError as error:
            raise InvalidStorageUrl(
                f"The folder for blobs, {root}, cannot be used: {error.strerror}. "
                "Name a folder that the service may write to."
            ) from error
        self._temporary = self._root / TEMPORARY_FOLDER

    def writer(self, key: str) -> BlobWriter:
        """Open a write; see `Storage.writer`."""
        return self._open_writer(key)

    def put(self, key: str, chunks: Iterable[bytes]) -> StoredBlob:
        """Store the chunks; see `Storage.put`."""
        with self._open_writer(key) as writer:
            for chunk in chunks:
                writer.write(chunk)
            return writer.commit()

    def put_if_absent(self, key: str, data: bytes) -> bool:
        """Create the blob if there is none; see `Storage.put_if_absent`."""
        with self._open_writer(key) as writer:
            writer.write(data)
            return writer.link()

    def read(
        self, key: str, *, start: int = 0, end: int | None = None, chunk_size: int = CHUNK_SIZE
    ) -> Generator[bytes, None, None]:
        """Return the bytes; see `Storage.read`."""
        check_range(start, end)
        chunks = self._read_chunks(key, start, end, chunk_size)
        # A generator runs nothing until its first `next`.
        next(chunks)  # opens the file, so that what is wrong is raised here
        return chunks

    def stat(self, key: str) -> BlobStat | None:
        """Return the blob's size; see `Storage.stat`."""
        path = self._blob_path(key)
        with _translate_errors("looked up"):
            try:
                status = path.stat()
            except (FileNotFoundError, NotADirectoryError):
                return None
        return BlobStat(key, status.st_size) if modes.S_ISREG(status.st_mode) else None

    def delete(self, key: str) -> None:
        """Delete the blob and the folders that are empty then; see `Storage.delete`."""
        path = self._blob_path(key)
        with _translate_errors("deleted"):
            try:
                path.unlink()
            except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
                return
        self._prune_folders(path.parent)

    def delete_prefix(self, prefix: str) -> int:
        """Delete every blob under a prefix; see `Storage.delete_prefix`."""
        if not prefix:
            raise InvalidKey(prefix, "an empty prefix would delete everything")
        count = 0
        for blob in self.list(prefix):
            self.delete(blob.key)
            count += 1
        return count

    def list(self, prefix: str) -> Iterator[BlobStat]:
        """Yield the blobs under a prefix; see `Storage.list`."""
        folder = folder_of(prefix)
        return self._walk_folder(self._blob_path(folder) if folder else self._root)

    def remove_abandoned(self, older_than: timedelta) -> int:
        """Remove temporary files that were last written that long ago; see `Storage.remove_abandoned`."""
        oldest, count = time.time() - older_than.total_seconds(), 0
        with _translate_errors("cleaned up"), os.scandir(self._temporary) as entries:
            for entry in entries:
                with suppress(FileNotFoundError):
                    if entry.stat(follow_symlinks=False).st_mtime < oldest:
                        os.unlink(entry.path)
                        count += 1
        return count

    def check(self) -> None:
        """Write and remove a small file; see `Storage.check`."""
        with self._open_writer("check") as writer:
            writer.write(b"check")
            writer.sync()

    def _open_writer(self, key: str) -> _LocalWriter:
        return _LocalWriter(key, self._blob_path(key), self._root)

    def _blob_path(self, key: str) -> Path:
        path = self._root.joinpath(*check_key(key).split("/"))
        # The key cannot leave the root, but a link that somebody laid under it could.
        if not path.resolve().is_relative_to(self._root):
            raise InvalidKey(key, "it leads out of the storage's folder")
        return path

    def _read_chunks(self, key: str, start: int, end: int | None, chunk_size: int) -> Generator[bytes, None, None]:
        path = self._blob_path(key)
        with _translate_errors("read"):
            try:
                file = path.open("rb", buffering=0)
            except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
                raise BlobNotFound(key) from None
            with file:
                yield b""
                file.seek(start)
                bytes_left = os.fstat(file.fileno()).st_size - start if end is None else end - start
                while bytes_left > 0 and (chunk := file.read(min(chunk_size, bytes_left))):
                    bytes_left -= len(chunk)
                    yield chunk

    def _walk_folder(self, folder: Path) -> Iterator[BlobStat]:
        with _translate_errors("listed"):
            try:
                with os.scandir(folder) as scan:
                    entries = sorted((entry.name, entry.is_dir(follow_symlinks=False)) for entry in scan)
            except (FileNotFoundError, NotADirectoryError):
                return
            for name, is_folder in entries:
                path = folder / name
                key = path.relative_to(self._root).as_posix()
                if is_folder:
                    yield from self._walk_folder(path)
                elif is_key(key):
                    with suppress(FileNotFoundError):
                        yield BlobStat(key, path.stat().st_size)

    def _prune_folders(self, folder: Path) -> None:
        # rmdir(2) refuses a folder that another writer has just filled, which ends the loop.
        with suppress(OSError):
            while folder != self._root:
                folder.rmdir()
                folder = folder.parent


class _LocalWriter(HashingWriter):
    def __init__(self, key: str, path: Path, root: Path) -> None:
        super().__init__(key)
        self._path, self._root = path, root
        self._draft = root / TEMPORARY_FOLDER / secrets.token_hex(16)
        with _translate_errors("written"):
            # CLOEXEC: children such as trainers must not inherit half-written blobs.
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            self._file = os.fdopen(os.open(self._draft, flags, 0o600), "wb", buffering=0)

    def sync(self) -> None:
        with _translate_errors("written"):
            os.fsync(self._file.fileno())

    def link(self) -> bool:
        """Make the bytes visible unless the key exists; return whether they are."""
        self.sync()
        try:
            # link(2) fails if the name exists, while rename(2) would replace it.
            self._place_draft(os.link)
        except FileExistsError:
            return False
        return True

    def _write_chunk(self, chunk: bytes) -> None:
        with _translate_errors("written"):
            view = memoryview(chunk)
            while view:
                view = view[self._file.write(view) :]

    def _commit_blob(self) -> None:
        # The bytes reach the disk before the name does: after a power failure no blob is empty or cut.
        self.sync()
        self._place_draft(os.replace)
        self._file.close()

    def _abort_write(self) -> None:
        with suppress(OSError):
            self._file.close()
        self._draft.unlink(missing_ok=True)

    def _place_draft(self, move: Callable[[Path, Path], None]) -> None:
        with _translate_errors("written"):
            for _ in range(_PLACING_TRIES):
                self._make_parents()
                # Another process may have pruned the empty folder since.
                with suppress(FileNotFoundError):
                    self._move_draft(move)
                    # The name itself is data of the folder, and is lost with it unless that is synced too.
                    _sync_folder(self._path.parent)
                    return
        raise StorageUnavailable("The blob could not be put into its folder, which vanished again and again.")

    def _move_draft(self, move: Callable[[Path, Path], None]) -> None:
        if self._path.is_dir():
            try:
                self._path.rmdir()  # what a killed process made and did not fill
            except OSError:
                raise InvalidKey(self._key, "it is a folder of other blobs") from None
        try:
            move(self._draft, self._path)
        except NotADirectoryError:
            raise InvalidKey(self._key, _BLOB_INSIDE) from None

    def _make_parents(self) -> None:
        missing_parents = [p for p in self._path.parents if p.is_relative_to(self._root) and not p.exists()]
        try:
            for folder in reversed(missing_parents):
                folder.mkdir(mode=0o700, exist_ok=True)
                _sync_folder(folder.parent)
        except FileNotFoundError:
            return  # pruned meanwhile; the move fails and it is tried again
        except (FileExistsError, NotADirectoryError):
            # `mkdir` says that a folder exists which was pruned before it looked whether that is a folder: try again.
            if any(parent.exists() and not parent.is_dir() for parent in missing_parents):
                raise InvalidKey(self._key, _BLOB_INSIDE) from None


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _translate_errors(verb: str) -> Generator[None, None, None]:
    """Turn an OSError into this package's errors. `verb` says what could not be done to the blob."""
    try:
        yield
    except FileExistsError:
        raise
    except OSError as error:
        if error.errno in _FULL:
            raise StorageFull(
                "The disk of the blob folder is full: nothing was kept. Free some space and try again."
            ) from error
        reason = error.strerror or type(error).__name__
        raise StorageUnavailable(f"The blob cannot be {verb} in the blob folder: {reason}.") from error
