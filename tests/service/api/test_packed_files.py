"""Uploads in gzip, zstd and Parquet; the same bytes are stored once; on both databases."""

from __future__ import annotations

import gzip
import random
import threading
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from sqlalchemy import select

from service.controller import garbage
from service.queue.rq import RqJobQueue
from service.tables.files import FileContentRow, FileRow
from tests.fixtures.packed import PACKINGS, gzip_bomb, parquet, zstd, zstd_bomb
from tests.fixtures.postgres import new_database
from tests.fixtures.service import GOOD_JSONL, GOOD_ROW, RunningApi, make_context, run_api, upload

QUEUE = RqJobQueue("unix:///nowhere")
TYPES = {
    "none": "application/jsonl",
    "gzip": "application/gzip",
    "zstd": "application/zstd",
    "parquet": "application/vnd.apache.parquet",
}


@pytest.fixture(scope="module", params=["sqlite", pytest.param("postgresql", marks=pytest.mark.integration)])
def api(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Generator[RunningApi]:
    folder: Path = tmp_path_factory.mktemp(request.param)
    if request.param == "sqlite":
        with run_api(make_context(folder)) as running:
            yield running
        return
    with (
        new_database() as url,
        run_api(make_context(folder, database_url=url, secret_key="k" * 32)) as running,
    ):
        yield running


@pytest.fixture
def client(api: RunningApi, request: pytest.FixtureRequest) -> Generator[httpx.Client]:
    with api.client(f"test-{request.node.name}"[:64]) as client:
        yield client


def in_parts(client: httpx.Client, data: bytes, filename: str) -> httpx.Response:
    body = {"filename": filename, "purpose": "fine-tune", "bytes": len(data), "mime_type": "application/octet-stream"}
    upload_id = client.post("/uploads", json=body).json()["id"]
    third = len(data) // 3 + 1
    pieces = [data[start : start + third] for start in range(0, len(data), third)]
    parts = [client.post(f"/uploads/{upload_id}/parts", files={"data": ("x", piece)}).json()["id"] for piece in pieces]
    return client.post(f"/uploads/{upload_id}/complete", json={"part_ids": parts})


@pytest.mark.slow
@pytest.mark.parametrize("name", ["train.jsonl", "训练.jsonl.gz", "train.parquet", "a.txt.zst"])
@pytest.mark.parametrize("packing", PACKINGS)
def test_the_bytes_and_not_the_name_decide_the_packing(
    api: RunningApi, client: httpx.Client, packing: str, name: str
) -> None:
    data = PACKINGS[packing]([GOOD_ROW])
    answers = (upload(client, data, name).json(), in_parts(client, data, name).json()["file"])
    for file in answers:
        assert (file["bytes"], file["filename"], file["status"]) == (len(data), name, "processed")
        content = client.get(f"/files/{file['id']}/content")
        assert content.content == data
        if packing != "none":
            assert content.headers["content-type"] == TYPES[packing]
        with api.context.db.read() as session:
            assert session.scalars(select(FileRow.packing).where(FileRow.id == file["id"])).one() == packing


BROKEN: dict[str, tuple[Callable[[], bytes], str]] = {
    "a gzip bomb": (gzip_bomb, "more than 200 times"),
    "a zstd bomb": (zstd_bomb, "more than 200 times"),
    "gzip cut short": (lambda: gzip.compress(GOOD_JSONL)[:-4], "too early"),
    "zstd cut short": (lambda: zstd.compress(GOOD_JSONL)[:-4], "too early"),
    "parquet cut short": (lambda: parquet([GOOD_ROW])[:-4], "cut short"),
    "a bad row in gzip": (lambda: gzip.compress(GOOD_JSONL + b"[]\n"), "line 4: is a list"),
    "a bad row in zstd": (lambda: zstd.compress(GOOD_JSONL + b'{"a":1,"a":2}\n'), "line 4: has the key a twice"),
    "gzip in gzip": (lambda: gzip.compress(gzip.compress(GOOD_JSONL)), "compress the file once"),
    "xz": (lambda: b"\xfd7zXZ\x00" + b"\0" * 100, "use gzip or zstd"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", BROKEN)
def test_what_is_broken_is_named_and_not_stored(api: RunningApi, client: httpx.Client, name: str) -> None:
    made, reason = BROKEN[name]
    before = blobs(api)
    for send in (upload, in_parts):
        answer = send(client, made(), "train.jsonl")
        assert answer.status_code == 400
        error = answer.json()["error"]
        assert error["code"] == "invalid_file_format"
        assert reason in error["message"]
    assert blobs(api) == before
    assert client.get("/files").json()["data"] == []


def blobs(api: RunningApi) -> set[str]:
    clean(api)
    return {blob.key for blob in api.context.storage.list("files")}


def clean(api: RunningApi) -> None:
    while garbage.delete_blobs(api.context, QUEUE):
        pass


def contents(api: RunningApi) -> dict[str, int]:
    with api.context.db.read() as session:
        return {row.blob_key: row.files for row in session.scalars(select(FileContentRow))}


def test_the_same_bytes_are_stored_once_and_stay_until_the_last_file_goes(
    api: RunningApi, client: httpx.Client
) -> None:
    data = GOOD_JSONL + b"\n" * 7
    before = blobs(api)
    ids = [upload(client, data, f"{number}.jsonl").json()["id"] for number in range(3)]
    ids.append(in_parts(client, data, "parts.jsonl").json()["file"]["id"])
    (key,) = blobs(api) - before
    assert contents(api)[key] == 4
    assert {client.get(f"/files/{file_id}").json()["bytes"] for file_id in ids} == {len(data)}
    while ids:
        assert client.delete(f"/files/{ids.pop(0)}").status_code == 200
        clean(api)
        assert all(client.get(f"/files/{file_id}/content").content == data for file_id in ids)
    assert blobs(api) == before
    assert key not in contents(api)
    again = upload(client, data).json()["id"]
    assert client.get(f"/files/{again}/content").content == data


def test_projects_share_nothing(api: RunningApi, client: httpx.Client) -> None:
    before = blobs(api)
    mine = upload(client).json()["id"]
    with api.client("another") as another:
        theirs = upload(another).json()["id"]
        assert len(blobs(api) - before) == 2
        client.delete(f"/files/{mine}")
        clean(api)
        assert another.get(f"/files/{theirs}/content").content == GOOD_JSONL


def test_a_repeated_upload_counts_once(api: RunningApi, client: httpx.Client) -> None:
    data = GOOD_JSONL + b"\n" * 3
    before = blobs(api)
    headers = {"Idempotency-Key": "same"}
    body = {"files": {"file": ("a.jsonl", data)}, "data": {"purpose": "fine-tune"}, "headers": headers}
    first, second = (client.post("/files", **body).json() for _ in range(2))
    assert first == second
    (key,) = blobs(api) - before
    assert contents(api)[key] == 1
    client.delete(f"/files/{first['id']}")
    assert blobs(api) == before


def test_a_file_that_is_deleted_twice_at_once_counts_down_once(api: RunningApi, client: httpx.Client) -> None:
    data = GOOD_JSONL + b"\n" * 5
    kept, gone = (upload(client, data).json()["id"] for _ in range(2))
    barrier = threading.Barrier(4)

    def delete(_: int) -> int:
        barrier.wait()
        return client.delete(f"/files/{gone}").status_code

    with ThreadPoolExecutor(4) as pool:
        statuses = list(pool.map(delete, range(4)))
    assert set(statuses) <= {200, 404}
    clean(api)
    assert client.get(f"/files/{kept}/content").content == data


@pytest.mark.slow
def test_uploads_and_deletions_of_the_same_bytes_at_once_lose_nothing(api: RunningApi, client: httpx.Client) -> None:
    data = GOOD_JSONL + b"\n" * 9
    before = blobs(api)
    alive: list[str] = []
    lock = threading.Lock()

    def work(seed: int) -> None:
        dice = random.Random(seed)
        for _ in range(12):
            with lock:
                victim = alive.pop(dice.randrange(len(alive))) if alive and dice.random() < 0.6 else None
            if victim:
                assert client.delete(f"/files/{victim}").status_code == 200
                garbage.delete_blobs(api.context, QUEUE)
            else:
                made = upload(client, data)
                assert made.status_code == 200
                with lock:
                    alive.append(made.json()["id"])

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))
    clean(api)
    stored = blobs(api) - before
    assert len(stored) == bool(alive)
    assert [count for key, count in contents(api).items() if key in stored] == [len(alive)] * bool(alive)
    for file_id in alive:
        assert client.get(f"/files/{file_id}/content").content == data
