from __future__ import annotations

import io
import socket
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from botocore.awsrequest import AWSResponse

from service.storage import Storage, StorageUnavailable, open_storage
from service.storage.s3 import PART_SIZE, S3Storage
from tests.fixtures.seaweedfs import S3Server

pytestmark = pytest.mark.integration


def opened(server: S3Server, url: str) -> Storage:
    return open_storage(url, access_key=server.access_key, secret_key=server.secret_key)


def refused(storage: Storage) -> str:
    """Return the sentence that every call fails with."""
    sentences: set[str] = set()
    for call in (
        storage.check,
        lambda: storage.put("a", [b"x"]),
        lambda: storage.put("a", [b"x" * (PART_SIZE + 1)]),
        lambda: storage.put_if_absent("a", b"x"),
        lambda: storage.read("a"),
        lambda: list(storage.list("")),
    ):
        with pytest.raises(StorageUnavailable) as caught:
            call()
        sentences.add(str(caught.value))
    assert len({sentence.split("(")[0] for sentence in sentences}) == 1
    return sentences.pop()


def test_a_wrong_secret_is_reported_without_the_secret(s3_server: S3Server) -> None:
    secret = "x" * 32
    storage = open_storage(s3_server.url, access_key=s3_server.access_key, secret_key=secret)
    sentence = refused(storage)
    assert "refuses access to the bucket 'burnish-tests'" in sentence
    assert secret not in sentence
    assert s3_server.access_key not in sentence
    with pytest.raises(StorageUnavailable, match="refuses access"):
        storage.stat("a")


def test_a_missing_bucket_is_reported(s3_server: S3Server) -> None:
    storage = opened(s3_server, s3_server.url.replace(s3_server.bucket, "no-such-bucket"))
    assert "The bucket 'no-such-bucket' does not exist" in refused(storage)
    with pytest.raises(StorageUnavailable, match="does not exist"):
        storage.stat("a")


def test_an_unreachable_server_is_reported() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
        url = f"s3://bucket?endpoint_url=http://127.0.0.1:{port}"
        storage = open_storage(url, access_key="a", secret_key="b")
        with pytest.raises(StorageUnavailable, match="cannot be reached or closed the connection"):
            storage.check()


def test_the_environment_gives_credentials(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in s3_server.environment().items():
        monkeypatch.setenv(name, value)
    open_storage(s3_server.url).check()


def test_keys_stay_under_the_prefix(s3_server: S3Server, s3_prefix: str) -> None:
    inner = opened(s3_server, s3_server.url_of(f"{s3_prefix}/inner"))
    outer = opened(s3_server, s3_server.url_of(s3_prefix))
    inner.put("a/b", [b"x"])
    outer.put("innermost", [b"x"])
    assert [blob.key for blob in inner.list("")] == ["a/b"]
    assert sorted(blob.key for blob in outer.list("")) == ["inner/a/b", "innermost"]


def test_the_markers_of_other_programs_are_passed_over(s3_server: S3Server, s3_prefix: str) -> None:
    s3_server.client().put_object(Bucket=s3_server.bucket, Key=f"{s3_prefix}/folder/")
    s3_server.client().put_object(Bucket=s3_server.bucket, Key=f"{s3_prefix}/folder/名")
    storage = opened(s3_server, s3_server.url_of(s3_prefix))
    storage.put("folder/a", [b"x"])
    assert [blob.key for blob in storage.list("folder")] == ["folder/a"]


@pytest.mark.parametrize(("theirs", "created"), [(b"mine", True), (b"another's", False)])
def test_a_create_is_still_ours_if_its_first_answer_got_lost(
    s3_server: S3Server, s3_prefix: str, theirs: bytes, created: bool
) -> None:
    """The server stores the blob, the answer breaks off, and boto's second try meets the first one's blob."""
    stored: list[str] = []

    class Body(io.BytesIO):
        def stream(self, *_: object, **__: object) -> Iterator[bytes]:
            yield self.read()

    def lose_first_answer(request: Any, **_: object) -> AWSResponse | None:
        if stored:
            return None
        stored.append(request.url)
        key = f"{s3_prefix}/manifest"
        s3_server.client().put_object(Bucket=s3_server.bucket, Key=key, Body=theirs)
        return AWSResponse(request.url, 503, {}, Body())

    storage = S3Storage(
        s3_server.bucket,
        s3_prefix,
        endpoint_url=s3_server.endpoint_url,
        access_key=s3_server.access_key,
        secret_key=s3_server.secret_key,
    )
    storage._client.meta.events.register("before-send.s3.PutObject", lose_first_answer)
    assert storage.put_if_absent("manifest", b"mine") is created
    assert stored
    storage.delete("manifest")


def test_uploads_of_killed_writers_are_removed_by_age(s3_server: S3Server, s3_prefix: str) -> None:
    storage = opened(s3_server, s3_server.url_of(s3_prefix))
    client = s3_server.client()
    client.create_multipart_upload(Bucket=s3_server.bucket, Key=f"{s3_prefix}/a")
    assert storage.remove_abandoned(timedelta(hours=1)) == 0
    assert storage.remove_abandoned(timedelta(0)) == 1
    assert storage.remove_abandoned(timedelta(0)) == 0
