"""Blob storage: byte streams under keys, in a local folder or in a bucket, chosen by the scheme of a URL."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from service.storage.base import BlobStat, BlobWriter, Storage, StoredBlob
from service.storage.errors import (
    BlobNotFound,
    InvalidKey,
    InvalidStorageUrl,
    StorageError,
    StorageFull,
    StorageUnavailable,
)
from service.storage.local import LocalStorage

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

_FORMS = "Use file:///folder or s3://bucket/prefix?endpoint_url=http://host:port&region=name."
_S3_OPTIONS = frozenset({"endpoint_url", "region"})


def open_storage(url: str, *, access_key: str | None = None, secret_key: str | None = None) -> Storage:
    """Open the storage that `url` names: `file:///folder` or `s3://bucket/prefix?endpoint_url=…&region=…`.

    The two keys are for S3; without them boto3 looks where it always does (`AWS_ACCESS_KEY_ID` and so on).
    Nothing is sent yet: `Storage.check` tells whether a bucket can be used. Raises InvalidStorageUrl.
    """
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise InvalidStorageUrl(f"The storage URL is not a URL. {_FORMS}") from error
    if parts.scheme == "file":
        return _open_local(parts)
    if parts.scheme == "s3":
        return _open_s3(parts, access_key, secret_key)
    raise InvalidStorageUrl(f"The storage URL begins with neither file:// nor s3://. {_FORMS}")


def _open_local(parts: SplitResult) -> Storage:
    path = unquote(parts.path)
    if parts.netloc not in ("", "localhost") or parts.query or parts.fragment or path in ("", "/"):
        raise InvalidStorageUrl(f"The storage URL names no absolute folder of this machine. {_FORMS}")
    if "\0" in path:
        raise InvalidStorageUrl("The storage URL has a NUL in its path: remove it.")
    return LocalStorage(Path(path))


def _open_s3(parts: SplitResult, access_key: str | None, secret_key: str | None) -> Storage:
    options = dict(parse_qsl(parts.query))
    if unknown := sorted(set(options) - _S3_OPTIONS):
        raise InvalidStorageUrl(
            f"The storage URL has the unknown option {unknown[0]!r}; it takes endpoint_url and region. "
            "Credentials go into the environment, never into the URL."
        )
    if "@" in parts.netloc or "@" in options.get("endpoint_url", ""):
        raise InvalidStorageUrl("The storage URL holds credentials: move them into the environment.")
    if not parts.netloc or ":" in parts.netloc or parts.fragment:
        raise InvalidStorageUrl(f"The storage URL names no bucket. {_FORMS}")
    if (access_key is None) != (secret_key is None):
        raise InvalidStorageUrl("An access key and a secret key come together: give both or neither.")
    # Only here: a local set-up never loads boto3.
    from service.storage.s3 import S3Storage

    try:
        return S3Storage(parts.netloc, parts.path.strip("/"), access_key=access_key, secret_key=secret_key, **options)
    except InvalidKey as error:
        raise InvalidStorageUrl(f"The prefix of the storage URL cannot be used. {_FORMS}") from error
    except ValueError as error:
        raise InvalidStorageUrl(f"The storage URL's endpoint_url is not an address. {_FORMS}") from error
