"""What can go wrong with blobs. Every message is a sentence for people, without secrets.

StorageError
├── BlobNotFound
├── InvalidKey            (also a ValueError)
├── InvalidStorageUrl     (also a ValueError)
├── StorageFull
└── StorageUnavailable
"""

from __future__ import annotations


class StorageError(Exception):
    """The base of this package's errors."""


class BlobNotFound(StorageError):
    """There is no blob under the key."""

    def __init__(self, key: str) -> None:
        super().__init__(f"There is no blob under the key {key!r}.")
        self.key = key


class InvalidKey(StorageError, ValueError):
    """The key, or the prefix, is not one that this storage can hold."""

    def __init__(self, key: str, reason: str) -> None:
        super().__init__(f"The key {key[:200]!r} cannot be used: {reason}.")
        self.key = key


class InvalidStorageUrl(StorageError, ValueError):
    """The storage URL of the configuration cannot be used. The message never repeats the URL's values."""


class StorageFull(StorageError):
    """No space is left for the bytes; nothing of them was kept."""


class StorageUnavailable(StorageError):
    """The storage cannot be reached, refuses the credentials, or fails; another try may succeed."""
