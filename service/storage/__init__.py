"""Blob storage: byte streams under keys, in a local folder or in a bucket, chosen by the scheme of a URL."""

from __future__ import annotations

from importlib import import_module
from typing import NamedTuple
from urllib.parse import urlsplit

from service.storage.base import BlobStat, BlobWriter, Storage, StoredBlob
from service.storage.errors import (
    BlobNotFound,
    InvalidKey,
    InvalidStorageUrl,
    StorageError,
    StorageFull,
    StorageUnavailable,
)
from service.storage.url import StorageUrl

__all__ = [
    "BlobNotFound",
    "BlobStat",
    "BlobWriter",
    "InvalidKey",
    "InvalidStorageUrl",
    "Storage",
    "StorageError",
    "StorageFull",
    "StorageUnavailable",
    "StoredBlob",
    "open_storage",
]


class StorageScheme(NamedTuple):
    """A kind of storage: how its URL looks, and the module with the `open_from_url` that opens it."""

    form: str
    module: str
    """It is loaded only if a URL has the scheme: a local set-up never loads boto3."""


SCHEMES: dict[str, StorageScheme] = {
    "file": StorageScheme("file:///folder", "service.storage.local"),
    "s3": StorageScheme("s3://bucket/prefix?endpoint_url=http://host:port&region=name", "service.storage.s3"),
}
"""Every storage by its URL's scheme: a new one is a module and a line here."""


def open_storage(url: str, *, access_key: str | None = None, secret_key: str | None = None) -> Storage:
    """Open the storage that `url` names: `file:///folder` or `s3://bucket/prefix?endpoint_url=…&region=…`.

    The two keys are for S3; without them boto3 looks where it always does (`AWS_ACCESS_KEY_ID` and so on).
    Nothing is sent yet: `Storage.check` finds out whether a bucket can be used. Raises InvalidStorageUrl.
    """
    forms = f"Use {' or '.join(scheme.form for scheme in SCHEMES.values())}."
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise InvalidStorageUrl(f"The storage URL is not a URL. {forms}") from error
    if parts.scheme not in SCHEMES:
        known_schemes = " nor ".join(f"{name}://" for name in SCHEMES)
        raise InvalidStorageUrl(f"The storage URL begins with neither {known_schemes}. {forms}")
    storage_url = StorageUrl(parts.netloc, parts.path, parts.query, parts.fragment, access_key, secret_key, forms)
    storage: Storage = import_module(SCHEMES[parts.scheme].module).open_from_url(storage_url)
    return storage
