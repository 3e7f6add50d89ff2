"""The contract of every blob store: byte streams under keys, visible whole or not at all."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from types import TracebackType
from typing import Protocol, Self

CHUNK_SIZE = 1 << 20


@dataclass(frozen=True, slots=True)
class BlobStat:
    """A blob's key and its size in bytes."""

    key: str
    bytes: int


@dataclass(frozen=True, slots=True)
class StoredBlob:
    """What a commit stored: size in bytes and SHA-256, in lowercase hex, of the bytes as they passed."""

    key: str
    bytes: int
    sha256: str


class BlobWriter(Protocol):
    """An open write and a context manager: leaving the block without `commit()` aborts and leaves nothing.

    A failed `write` or `commit` aborts by itself. After commit or abort, `write` and `commit` raise
    ValueError and `abort` does nothing.
    """

    def write(self, chunk: bytes) -> None:
        """Append bytes. Raises StorageFull or StorageUnavailable."""
        ...

    def commit(self) -> StoredBlob:
        """Make the bytes durable and visible under the key, in place of what was there.

        Raises StorageFull, StorageUnavailable, or InvalidKey (see `Storage`).
        """
        ...

    def abort(self) -> None:
        """Drop the bytes. Raises nothing: what cannot be dropped now is left to `remove_abandoned`."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class Storage(Protocol):
    """A store of blobs. Its methods block, hold a few chunks in memory, and may be called from any thread.

    A key is segments of `[A-Za-z0-9._=-]+` joined by `/`: no empty segment, no `.` or `..`, a first segment
    other than `.tmp`, at most 255 characters a segment and 900 in all. Anything else raises InvalidKey, in
    every method. A key is a blob or a folder of blobs, never both; whether a store notices (InvalidKey) is
    its own affair.

    A prefix is the key of a folder, with or without its last `/`: `a/b` covers `a/b/c` and not `a/bc`, nor
    the blob `a/b`. The empty prefix covers everything.

    Every method may raise StorageUnavailable.
    """

    def writer(self, key: str) -> BlobWriter:
        """Open a write. Nothing is visible under `key` before its commit."""
        ...

    def put(self, key: str, chunks: Iterable[bytes]) -> StoredBlob:
        """Store the chunks under `key`, in place of what was there. If `chunks` raises, nothing is stored.

        Raises StorageFull.
        """
        ...

    def put_if_absent(self, key: str, data: bytes) -> bool:
        """Create the blob in one atomic step; return False, and change nothing, if the key exists.

        Of several callers at the same time exactly one gets True. Raises StorageFull.
        """
        ...

    def read(
        self, key: str, *, start: int = 0, end: int | None = None, chunk_size: int = CHUNK_SIZE
    ) -> Generator[bytes, None, None]:
        """Return the bytes from offset `start` up to, not including, `end`, `chunk_size` at a time.

        Offsets past the blob's end are cut to it. Raises at the call, not at the first chunk: BlobNotFound,
        and ValueError if `start` is negative or after `end`. Close the generator if you leave it early.
        """
        ...

    def stat(self, key: str) -> BlobStat | None:
        """Return the blob's size, or None if there is none."""
        ...

    def delete(self, key: str) -> None:
        """Delete the blob; that it is absent is fine."""
        ...

    def delete_prefix(self, prefix: str) -> int:
        """Delete every blob under a prefix and return how many there were.

        Raises InvalidKey for the empty prefix: nobody means to delete everything.
        """
        ...

    def list(self, prefix: str) -> Iterator[BlobStat]:
        """Yield the blobs under a prefix, in an order of the store's own: S3 servers differ in it."""
        ...

    def remove_abandoned(self, older_than: timedelta) -> int:
        """Drop what writers of killed processes left behind, if it is that old; return how many there were.

        Choose an age longer than the longest write.
        """
        ...

    def check(self) -> None:
        """Return if the store can be used now; raise StorageUnavailable or StorageFull if not."""
        ...
