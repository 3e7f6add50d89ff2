"""Ranges, entity tags and digests of downloads."""

from __future__ import annotations

import base64
import hashlib

import httpx
import pytest

from tests.fixtures.service import GOOD_JSONL

SIZE = len(GOOD_JSONL)


@pytest.fixture
def path(file_id: str) -> str:
    return f"/files/{file_id}/content"


def test_a_whole_download_states_what_it_is(client: httpx.Client, path: str) -> None:
    whole = client.get(path)
    digest = base64.b64encode(hashlib.sha256(GOOD_JSONL).digest()).decode()
    assert whole.content == GOOD_JSONL
    assert whole.headers["content-digest"] == whole.headers["repr-digest"] == f"sha-256=:{digest}:"
    assert whole.headers["etag"] == f'"{hashlib.sha256(GOOD_JSONL).hexdigest()}"'
    assert whole.headers["accept-ranges"] == "bytes"


@pytest.mark.parametrize(
    ("asked", "start", "end"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=5-9", 5, 10),
        (f"bytes={SIZE - 1}-", SIZE - 1, SIZE),
        ("bytes=7-", 7, SIZE),
        ("bytes=-4", SIZE - 4, SIZE),
        (f"bytes=-{SIZE * 2}", 0, SIZE),
        (f"bytes=3-{SIZE * 2}", 3, SIZE),
    ],
)
def test_a_range(client: httpx.Client, path: str, asked: str, start: int, end: int) -> None:
    part = client.get(path, headers={"Range": asked})
    assert (part.status_code, part.content) == (206, GOOD_JSONL[start:end])
    assert part.headers["content-range"] == f"bytes {start}-{end - 1}/{SIZE}"
    assert part.headers["content-length"] == str(end - start)
    assert "content-digest" not in part.headers, "it would be the digest of the part"
    assert "repr-digest" in part.headers


@pytest.mark.parametrize("asked", [f"bytes={SIZE}-", "bytes=-0", f"bytes={10**17}-"])
def test_a_range_outside(client: httpx.Client, path: str, asked: str) -> None:
    refused = client.get(path, headers={"Range": asked})
    assert refused.status_code == 416
    assert refused.headers["content-range"] == f"bytes */{SIZE}"
    assert refused.json()["error"]["code"] == "range_not_satisfiable"


@pytest.mark.slow
@pytest.mark.parametrize(
    "asked",
    ["bytes=", "bytes=-", "bytes=5-4", "bytes=0-1,3-4", "lines=0-1", "bytes=a-b", f"bytes=0-{'9' * 40}", "bytes=٣-"],
)
def test_a_header_that_is_not_a_single_range_is_answered_whole(client: httpx.Client, path: str, asked: str) -> None:
    answer = client.get(path, headers=[(b"Range", asked.encode())])
    assert (answer.status_code, answer.content) == (200, GOOD_JSONL)


def test_conditions(client: httpx.Client, path: str) -> None:
    etag = client.get(path).headers["etag"]
    same = client.get(path, headers={"If-None-Match": f'"x", W/{etag}'})
    assert (same.status_code, same.content, same.headers["etag"]) == (304, b"", etag)
    assert client.get(path, headers={"If-None-Match": '"x"'}).status_code == 200
    assert client.get(path, headers={"Range": "bytes=1-", "If-Range": etag}).status_code == 206
    assert client.get(path, headers={"Range": "bytes=1-", "If-Range": '"x"'}).status_code == 200
    assert client.get(path, headers={"Range": "bytes=1-", "If-Range": f"W/{etag}"}).status_code == 200
