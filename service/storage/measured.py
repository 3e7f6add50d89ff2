"""Any store with its calls counted, by operation and outcome."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta

from service.kit import metrics
from service.storage.base import CHUNK_SIZE, BlobStat, BlobWriter, Storage, StoredBlob
from service.storage.errors import BlobNotFound, StorageFull, StorageUnavailable

_OUTCOMES: tuple[tuple[type[Exception], str], ...] = (
    (BlobNotFound, "not_found"),
    (StorageFull, "full"),
    (StorageUnavailable, "unavailable"),
)


@contextmanager
def count_call(operation: str) -> Generator[None]:
    """Count the block as a call, by what it raises."""
    outcome = "ok"
    try:
        yield
    except Exception as error:
        outcome = next((name for kind, name in _OUTCOMES if isinstance(error, kind)), "error")
        raise
    finally:
        metrics.STORAGE_CALLS.labels(operation, outcome).inc()


class MeasuredStorage:
    """A `Storage` around another; see there for the contract."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    def writer(self, key: str) -> BlobWriter:
        """Open a write; see `Storage.writer`."""
        with count_call("open_write"):
            return self._storage.writer(key)

    def put(self, key: str, chunks: Iterable[bytes]) -> StoredBlob:
        """Store chunks; see `Storage.put`."""
        with count_call("put"):
            return self._storage.put(key, chunks)

    def put_if_absent(self, key: str, data: bytes) -> bool:
        """Create a blob; see `Storage.put_if_absent`."""
        with count_call("put_if_absent"):
            return self._storage.put_if_absent(key, data)

    def read(
        self, key: str, *, start: int = 0, end: int | None = None, chunk_size: int = CHUNK_SIZE
    ) -> Generator[bytes, None, None]:
        """Return bytes; see `Storage.read`."""
        with count_call("open_read"):
            return self._storage.read(key, start=start, end=end, chunk_size=chunk_size)

    def stat(self, key: str) -> BlobStat | None:
        """Return the blob's size; see `Storage.stat`."""
        with count_call("stat"):
            return self._storage.stat(key)

    def delete(self, key: str) -> None:
        """Delete a blob; see `Storage.delete`."""
        with count_call("delete"):
            self._storage.delete(key)

    def delete_prefix(self, prefix: str) -> int:
        """Delete blobs; see `Storage.delete_prefix`."""
        with count_call("delete_prefix"):
            return self._storage.delete_prefix(prefix)

    def list(self, prefix: str) -> Iterator[BlobStat]:
        """Yield blobs; see `Storage.list`."""
        with count_call("list"):
            yield from self._storage.list(prefix)

    def remove_abandoned(self, older_than: timedelta) -> int:
        """Drop what killed writers left; see `Storage.remove_abandoned`."""
        with count_call("remove_abandoned"):
            return self._storage.remove_abandoned(older_than)

    def check(self) -> None:
        """Return if the store can be used; see `Storage.check`."""
        with count_call("check"):
            self._storage.check()
