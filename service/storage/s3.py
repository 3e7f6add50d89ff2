"""Blobs as objects of a bucket, on AWS or any server that speaks S3: `s3://bucket/prefix`."""

# boto3 has no types of its own: its client is Any here.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false

from __future__ import annotations

import base64
import hashlib
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any

import boto3.session
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError, PartialCredentialsError

from service.storage.base import CHUNK_SIZE, BlobStat, BlobWriter, StoredBlob
from service.storage.errors import BlobNotFound, InvalidKey, InvalidStorageUrl, StorageFull, StorageUnavailable
from service.storage.keys import check_key, check_range, folder_of, is_key
from service.storage.url import StorageUrl
from service.storage.writer import HashingWriter

PART_SIZE = 8 << 20
_PARTS_OF_ONE_SIZE = 1000
_DELETE_BATCH = 1000
_CREATE_TRIES = 5
_MISSING = ("404", "NoSuchKey")
_REFUSED = (
    "AccessDenied",
    "ExpiredToken",
    "InvalidAccessKeyId",
    "InvalidToken",
    "SignatureDoesNotMatch",
)
_URL_OPTIONS = frozenset({"endpoint_url", "region"})
_FULL = ("InsufficientStorage", "QuotaExceeded", "XMinioStorageFull")


def open_from_url(url: StorageUrl) -> S3Storage:
    """Open the bucket of an `s3:` URL. Raises InvalidStorageUrl."""
    options = url.options
    if unknown := sorted(set(options) - _URL_OPTIONS):
        raise InvalidStorageUrl(
            f"The storage URL has the unknown option {unknown[0]!r}; it takes endpoint_url and region. "
            "Credentials go into the environment, never into the URL."
        )
    if "@" in url.host or "@" in options.get("endpoint_url", ""):
        raise InvalidStorageUrl("The storage URL holds credentials: move them into the environment.")
    if not url.host or ":" in url.host or url.fragment:
        raise url.refusal("names no bucket")
    if (url.access_key is None) != (url.secret_key is None):
        raise InvalidStorageUrl("An access key and a secret key come together: give both or neither.")
    keys = {"access_key": url.access_key, "secret_key": url.secret_key}
    try:
        return S3Storage(url.host, url.path.strip("/"), **keys, **options)
    except InvalidKey as error:
        raise InvalidStorageUrl(f"The prefix of the storage URL cannot be used. {url.forms}") from error
    except ValueError as error:
        raise InvalidStorageUrl(f"The storage URL's endpoint_url is not an address. {url.forms}") from error


class S3Storage:
    """A `Storage` in a bucket. The bucket must exist; nothing outside `prefix` is read or written.

    Uploads carry a checksum that the server verifies: SHA-256 in one request, CRC-32 a part in several.
    """

    def __init__(
        self,
        bucket: str,
        prefix: str = "",
        *,
        endpoint_url: str | None = None,
        region: str | None = None,
        access_key: str | None = None,
        secret_key: str | None = None,
    ) -> None:
        self._bucket = bucket
        folder = folder_of(prefix)
        self._prefix = f"{folder}/" if folder else ""
        self._failures = _S3Failures(bucket, endpoint_url)
        config = Config(
            connect_timeout=5,
            read_timeout=60,
            retries={"total_max_attempts": 4, "mode": "standard"},
            max_pool_connections=32,
            signature_version="s3v4",
            # Servers other than AWS rarely have a DNS name for each bucket.
            s3={"addressing_style": "path" if endpoint_url else "auto"},
        )
        # A session of our own: boto3's default one is not safe to use from several threads.
        session: Any = boto3.session.Session()
        with self._failures.translate_errors():
            self._client: Any = session.client(
                "s3",
                endpoint_url=endpoint_url,
                region_name=region,
                aws_access_key_id=access_key,
                aws_secret_access_key=secret_key,
                config=config,
            )

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
        """Create the blob if there is none, by `If-None-Match: *`; see `Storage.put_if_absent`."""
        request = self._object_target(key) | _body_with_checksum(data)
        with self._failures.translate_errors():
            for _ in range(_CREATE_TRIES):
                try:
                    self._client.put_object(**request, IfNoneMatch="*")
                    return True
                except ClientError as error:
                    status = _error_status(error)
                    # boto3 retries by itself: the first try may have created the object, and only its answer got lost.
                    if status == 412:
                        return self._was_ours(key, data, error)
                    if status != 409:  # 409: another create is under way, and may yet fail
                        raise
        raise StorageUnavailable(f"The blob {key!r} could not be created: others kept trying at the same time.")

    def read(
        self, key: str, *, start: int = 0, end: int | None = None, chunk_size: int = CHUNK_SIZE
    ) -> Generator[bytes, None, None]:
        """Return the bytes; see `Storage.read`."""
        check_range(start, end)
        chunks = self._read_chunks(key, start, end, chunk_size)
        next(chunks)  # sends the request, so that what is wrong is raised here
        return chunks

    def stat(self, key: str) -> BlobStat | None:
        """Return the blob's size; see `Storage.stat`."""
        target = self._object_target(key)
        with self._failures.translate_errors():
            try:
                return BlobStat(key, self._client.head_object(**target)["ContentLength"])
            except ClientError as error:
                if _error_code(error) not in _MISSING:
                    raise
            # The answer to HEAD has no body: it is the same if the whole bucket is missing.
            self._probe_bucket()
            return None

    def delete(self, key: str) -> None:
        """Delete the blob; see `Storage.delete`."""
        target = self._object_target(key)
        with self._failures.translate_errors():
            self._client.delete_object(**target)

    def delete_prefix(self, prefix: str) -> int:
        """Delete every blob under a prefix; see `Storage.delete_prefix`."""
        if not prefix:
            raise InvalidKey(prefix, "an empty prefix would delete everything")
        blobs, count = self.list(prefix), 0
        # DeleteObjects takes up to 1,000 keys.
        while batch := [{"Key": self._prefix + blob.key} for blob in islice(blobs, _DELETE_BATCH)]:
            with self._failures.translate_errors():
                answer = self._client.delete_objects(Bucket=self._bucket, Delete={"Objects": batch, "Quiet": True})
            # The request answers 200 even if single keys were not deleted.
            if errors := answer.get("Errors"):
                raise self._failures.of_code(errors[0].get("Code", "unknown"))
            count += len(batch)
        return count

    def list(self, prefix: str) -> Iterator[BlobStat]:
        """Yield the blobs under a prefix; see `Storage.list`."""
        folder = folder_of(prefix)
        return self._list_pages(f"{self._prefix}{folder}/" if folder else self._prefix)

    def remove_abandoned(self, older_than: timedelta) -> int:
        """Abort multipart uploads that were begun that long ago; see `Storage.remove_abandoned`."""
        oldest, count = datetime.now(UTC) - older_than, 0
        with self._failures.translate_errors():
            pages = self._client.get_paginator("list_multipart_uploads")
            for page in pages.paginate(Bucket=self._bucket, Prefix=self._prefix):
                for upload in page.get("Uploads", ()):
                    if upload["Initiated"] <= oldest:
                        self._client.abort_multipart_upload(
                            Bucket=self._bucket, Key=upload["Key"], UploadId=upload["UploadId"]
                        )
                        count += 1
        return count

    def check(self) -> None:
        """List one object of the prefix; see `Storage.check`."""
        with self._failures.translate_errors():
            self._probe_bucket()

    def _probe_bucket(self) -> None:
        self._client.list_objects_v2(Bucket=self._bucket, Prefix=self._prefix, MaxKeys=1)

    def _object_target(self, key: str) -> dict[str, Any]:
        return {"Bucket": self._bucket, "Key": self._prefix + check_key(key)}

    def _open_writer(self, key: str) -> _S3Writer:
        return _S3Writer(key, self._object_target(key), self._client, self._failures)

    def _was_ours(self, key: str, data: bytes, error: ClientError) -> bool:
        """Return whether a create that was refused after a retry had succeeded at first, and its answer got lost."""
        response: Any = error.response
        return response["ResponseMetadata"].get("RetryAttempts", 0) > 0 and b"".join(self.read(key)) == data

    def _read_chunks(self, key: str, start: int, end: int | None, chunk_size: int) -> Generator[bytes, None, None]:
        target = self._object_target(key)
        if start or end is not None:
            # S3 cannot ask for no bytes at all: ask for one, and leave it.
            target["Range"] = f"bytes={start}-" + ("" if end is None else str(max(end - 1, start)))
        with self._failures.translate_errors():
            try:
                body = self._client.get_object(**target)["Body"]
            except ClientError as error:
                if _error_code(error) in _MISSING:
                    raise BlobNotFound(key) from None
                # 416: the range begins at or behind the end, which `Storage.read` answers with no bytes.
                if _error_status(error) != 416:
                    raise
                yield b""
                return
            with body:
                yield b""
                if end != start:
                    yield from body.iter_chunks(chunk_size)

    def _list_pages(self, prefix: str) -> Iterator[BlobStat]:
        with self._failures.translate_errors():
            pages = self._client.get_paginator("list_objects_v2")
            for page in pages.paginate(Bucket=self._bucket, Prefix=prefix):
                for entry in page.get("Contents", ()):
                    key = entry["Key"][len(self._prefix) :]
                    if is_key(key):  # other programs leave markers such as `folder/`
                        yield BlobStat(key, entry["Size"])


class _S3Writer(HashingWriter):
    """Holds at most one part; what fits into one part goes up in one request, anything longer in several."""

    def __init__(self, key: str, target: dict[str, Any], client: Any, failures: _S3Failures) -> None:
        super().__init__(key)
        self._target, self._client, self._failures = target, client, failures
        self._buffer = bytearray()
        self._upload: dict[str, Any] = {}
        self._parts: list[dict[str, Any]] = []

    def _write_chunk(self, chunk: bytes) -> None:
        unbuffered = memoryview(chunk)
        while unbuffered:
            # Parts grow by and by, because an upload has at most 10 000 of them.
            room = PART_SIZE * (1 + len(self._parts) // _PARTS_OF_ONE_SIZE) - len(self._buffer)
            if not room:
                self._send_part()
                continue
            self._buffer += unbuffered[:room]
            unbuffered = unbuffered[room:]

    def _commit_blob(self) -> None:
        with self._failures.translate_errors():
            if not self._upload:
                self._client.put_object(**self._target, **_body_with_checksum(bytes(self._buffer)))
                return
            self._send_part()
            self._client.complete_multipart_upload(
                **self._target, **self._upload, MultipartUpload={"Parts": self._parts}
            )

    def _abort_write(self) -> None:
        self._buffer.clear()
        if self._upload:
            with suppress(BotoCoreError, ClientError):
                # Parts that were sent cost storage until the upload is aborted, although no object shows them.
                self._client.abort_multipart_upload(**self._target, **self._upload)

    def _send_part(self) -> None:
        with self._failures.translate_errors():
            if not self._upload:
                answer = self._client.create_multipart_upload(**self._target, ChecksumAlgorithm="CRC32")
                self._upload = {"UploadId": answer["UploadId"]}
            number = len(self._parts) + 1
            part = self._client.upload_part(
                **self._target,
                **self._upload,
                PartNumber=number,
                Body=bytes(self._buffer),
                ChecksumAlgorithm="CRC32",
            )
        self._buffer.clear()
        # The completion must repeat them for each part; servers without checksums return the ETag alone.
        facts = {name: part[name] for name in ("ETag", "ChecksumCRC32") if name in part}
        self._parts.append({"PartNumber": number, **facts})


class _S3Failures:
    """Sentences for what S3 answers. They name bucket and server, never a credential or a header."""

    def __init__(self, bucket: str, endpoint_url: str | None) -> None:
        self._bucket = bucket
        self._server = endpoint_url or "AWS"

    @contextmanager
    def translate_errors(self) -> Generator[None, None, None]:
        """Turn boto's errors into this package's."""
        try:
            yield
        except ClientError as error:
            raise self.of_code(_error_code(error), _error_status(error)) from error
        except (NoCredentialsError, PartialCredentialsError) as error:
            raise StorageUnavailable(
                f"There are no credentials for the bucket {self._bucket!r}: set AWS_ACCESS_KEY_ID and "
                "AWS_SECRET_ACCESS_KEY."
            ) from error
        except BotoCoreError as error:
            raise StorageUnavailable(
                f"The S3 server {self._server} cannot be reached or closed the connection ({type(error).__name__}): "
                "check its address and the network."
            ) from error

    def of_code(self, code: str, status: int = 0) -> StorageFull | StorageUnavailable:
        """Return the error for an S3 error code and an HTTP status."""
        if code in _FULL or status == 507:
            return StorageFull(
                f"The bucket {self._bucket!r} has no space left ({code}): nothing was kept. "
                "Free some space and try again."
            )
        if code == "NoSuchBucket":
            return StorageUnavailable(f"The bucket {self._bucket!r} does not exist on {self._server}: create it.")
        if code in _REFUSED or status in (401, 403):
            return StorageUnavailable(
                f"The S3 server {self._server} refuses access to the bucket {self._bucket!r} ({code}): "
                "check the access key, the secret key and the bucket's policy."
            )
        return StorageUnavailable(
            f"The S3 server {self._server} failed on the bucket {self._bucket!r} ({code}): try again later."
        )


def _body_with_checksum(data: bytes) -> dict[str, Any]:
    digest = base64.b64encode(hashlib.sha256(data).digest()).decode()
    return {"Body": data, "ChecksumSHA256": digest}


def _error_code(error: ClientError) -> str:
    response: Any = error.response
    return str(response.get("Error", {}).get("Code", "unknown"))


def _error_status(error: ClientError) -> int:
    response: Any = error.response
    return int(response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
