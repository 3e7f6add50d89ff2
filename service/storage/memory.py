"""Blobs in this process's memory: `memory://name`, for trying things out."""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterable, Iterator
from datetime import timedelta

from service.storage.base import CHUNK_SIZE, BlobStat, BlobWriter, StoredBlob
from service.storage.errors import BlobNotFound, InvalidKey
from service.storage.keys import check_key, check_range, folder_of
from service.storage.url import StorageUrl
from service.storage.writer import HashingWriter


def open_from_url(url: StorageUrl) -> MemoryStorage:
    """Open a new, empty storage. Raises InvalidStorageUrl."""
    if not url.host or url.path or url.query:
        raise url.refusal("names no memory")
    return MemoryStorage()


class MemoryStorage:
    """A `Storage` in memory."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._blobs: dict[str, bytes] = {}

    def writer(self, key: str) -> BlobWriter:
        """Open a write; see `Storage.writer`."""
        return _MemoryWriter(check_key(key), self)

    def put(self, key: str, chunks: Iterable[bytes]) -> StoredBlob:
        """Store the chunks; see `Storage.put`."""
        with self.writer(key) as writer:
            for chunk in chunks:
                writer.write(chunk)
            return writer.commit()

    def put_if_absent(self, key: str, data: bytes) -> bool:
        """Create the blob if there is none; see `Storage.put_if_absent`."""
        with self._lock:
            return self._blobs.setdefault(check_key(key), data) is data

    def keep(self, key: str, data: bytes) -> None:
        """Store the bytes of a write that was committed."""
        with self._lock:
            self._blobs[key] = data

    def read(
        self, key: str, *, start: int = 0, end: int | None = None, chunk_size: int = CHUNK_SIZE
    ) -> Generator[bytes, None, None]:
        """Return the bytes; see `Storage.read`."""
        check_range(start, end)
        data = self._blobs.get(check_key(key))
        if data is None:
            raise BlobNotFound(key)
        part = data[start:end]
        return (part[at : at + chunk_size] for at in range(0, len(part), chunk_size))

    def stat(self, key: str) -> BlobStat | None:
        """Return the blob's size; see `Storage.stat`."""
        data = self._blobs.get(check_key(key))
        return None if data is None else BlobStat(key, len(data))

    def delete(self, key: str) -> None:
        """Delete the blob; see `Storage.delete`."""
        with self._lock:
            self._blobs.pop(check_key(key), None)

    def delete_prefix(self, prefix: str) -> int:
        """Delete the blobs; see `Storage.delete_prefix`."""
        if not prefix:
            raise InvalidKey(prefix, "it would delete everything")
        found = [stat.key for stat in self.list(prefix)]
        for key in found:
            self.delete(key)
        return len(found)

    def list(self, prefix: str) -> Iterator[BlobStat]:
        """Yield the blobs; see `Storage.list`."""
        folder = folder_of(prefix)
        inside = f"{folder}/" if folder else ""
        return iter([BlobStat(key, len(data)) for key, data in self._blobs.items() if key.startswith(inside)])

    def remove_abandoned(self, older_than: timedelta) -> int:  # noqa: ARG002 - a killed process leaves no memory
        """Return 0."""
        return 0

    def check(self) -> None:
        """Return: memory is there."""


class _MemoryWriter(HashingWriter):
    def __init__(self, key: str, storage: MemoryStorage) -> None:
        super().__init__(key)
        self._storage, self._chunks = storage, list[bytes]()

    def _write(self, chunk: bytes) -> None:
        self._chunks.append(bytes(chunk))

    def _commit(self) -> None:
        self._storage.keep(self._key, b"".join(self._chunks))

    def _abort(self) -> None:
        self._chunks.clear()
