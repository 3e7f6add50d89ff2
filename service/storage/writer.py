"""What the writers of all stores share: hashing as the bytes pass, and an end that is reached once."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from types import TracebackType
from typing import Self

from service.storage.base import StoredBlob


class HashingWriter(ABC):
    """A `BlobWriter` without a place to write to: subclasses give `_write_chunk`, `_commit_blob` and `_abort_write`."""

    def __init__(self, key: str) -> None:
        self._key = key
        self._sha256 = hashlib.sha256()
        self._bytes = 0
        self._open = True

    @abstractmethod
    def _write_chunk(self, chunk: bytes) -> None: ...

    @abstractmethod
    def _commit_blob(self) -> None: ...

    @abstractmethod
    def _abort_write(self) -> None:
        """Drop everything; raise nothing."""

    def write(self, chunk: bytes) -> None:
        """Append bytes. Raises StorageFull or StorageUnavailable, and ValueError after the end."""
        self._require_open()
        try:
            self._write_chunk(chunk)
        except BaseException:
            self.abort()
            raise
        self._sha256.update(chunk)
        self._bytes += len(chunk)

    def commit(self) -> StoredBlob:
        """Make the bytes visible under the key. Raises as `write` does."""
        self._require_open()
        try:
            self._commit_blob()
        except BaseException:
            self.abort()
            raise
        self._open = False
        return StoredBlob(self._key, self._bytes, self._sha256.hexdigest())

    def abort(self) -> None:
        """Drop the bytes, unless they were committed."""
        if self._open:
            self._open = False
            self._abort_write()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.abort()

    def _require_open(self) -> None:
        if not self._open:
            raise ValueError(f"the write of {self._key!r} has ended: it takes no more bytes and no second commit")
