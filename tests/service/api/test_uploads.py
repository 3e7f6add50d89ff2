"""Files that come in parts."""

from __future__ import annotations

import hashlib
import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from openai import OpenAI
from sqlalchemy import select, update

from burnish import Burnish, UploadError, UploadInterrupted, _parts
from burnish.resources import files
from service.controller import garbage
from service.queue.rq import RqJobQueue
from service.tables.files import FileRow
from service.tables.uploads import UploadRow
from service.uploads import service
from tests.fixtures.service import GOOD_JSONL, RunningApi

QUEUE = RqJobQueue("unix:///nowhere")
PIECES = (GOOD_JSONL[:10], GOOD_JSONL[10:25], GOOD_JSONL[25:])  # 25 lies within a Chinese character


def announce(client: httpx.Client, size: int = len(GOOD_JSONL), **more: Any) -> httpx.Response:
    body = {"filename": "训练.jsonl", "purpose": "fine-tune", "bytes": size, "mime_type": "text/jsonl"} | more
    return client.post("/uploads", content=json.dumps(body), headers={"Content-Type": "application/json"})


def send(client: httpx.Client, upload_id: str, data: bytes) -> httpx.Response:
    return client.post(f"/uploads/{upload_id}/parts", files={"data": ("x", data)})


def sent(client: httpx.Client, pieces: tuple[bytes, ...] = PIECES) -> tuple[str, list[str]]:
    upload_id = announce(client, sum(map(len, pieces))).json()["id"]
    return upload_id, [send(client, upload_id, piece).json()["id"] for piece in pieces]


def complete(client: httpx.Client, upload_id: str, part_ids: list[str], **more: Any) -> httpx.Response:
    return client.post(f"/uploads/{upload_id}/complete", json={"part_ids": part_ids, **more})


def blobs(api: RunningApi, prefix: str) -> set[str]:
    return {blob.key for blob in api.context.storage.list(prefix)}


def test_parts_in_any_order_make_a_file_in_the_order_named(api: RunningApi, client: httpx.Client) -> None:
    upload = announce(client, expires_after={"anchor": "created_at", "seconds": 3600}).json()
    assert (upload["object"], upload["status"], upload["file"]) == ("upload", "pending", None)
    assert upload["expires_at"] - upload["created_at"] == 3600
    with ThreadPoolExecutor(3) as pool:
        parts = list(pool.map(lambda piece: send(client, upload["id"], piece).json(), reversed(PIECES)))
    assert {part["upload_id"] for part in parts} == {upload["id"]}
    assert parts[0]["sha256"] == hashlib.sha256(PIECES[2]).hexdigest()
    listed = client.get(f"/uploads/{upload['id']}").json()
    assert sorted(part["id"] for part in listed["parts"]) == sorted(part["id"] for part in parts)
    md5 = hashlib.md5(GOOD_JSONL, usedforsecurity=False).hexdigest().upper()
    done = complete(client, upload["id"], [part["id"] for part in reversed(parts)], md5=md5).json()
    assert done["status"] == "completed"
    file = done["file"]
    assert (file["filename"], file["bytes"], file["status"]) == ("训练.jsonl", len(GOOD_JSONL), "processed")
    assert file["expires_at"] - file["created_at"] == 3600
    assert client.get(f"/files/{file['id']}").json() == file
    assert client.get(f"/files/{file['id']}/content").content == GOOD_JSONL
    garbage.delete_blobs(api.context, QUEUE)
    assert blobs(api, f"uploads/{upload['id']}") == set()


def test_openais_client_uploads_in_chunks(api: RunningApi, client: httpx.Client, tmp_path: Any) -> None:
    path = tmp_path / "数据.jsonl"
    path.write_bytes(GOOD_JSONL * 20)
    key = api.key("test-chunks")
    with OpenAI(base_url=api.url, api_key=key, _strict_response_validation=True) as official:
        upload = official.uploads.upload_file_chunked(
            file=path,
            mime_type="application/jsonl",
            purpose="fine-tune",
            part_size=1000,
            md5=hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest(),
        )
        assert upload.status == "completed"
        assert upload.file is not None
        assert official.files.content(upload.file.id).content == path.read_bytes()
        other = official.uploads.create(filename="a.jsonl", purpose="fine-tune", bytes=3, mime_type="text/jsonl")
        assert official.uploads.cancel(other.id).status == "cancelled"


def test_inconsistent_parts_change_nothing_and_can_be_corrected(api: RunningApi, client: httpx.Client) -> None:
    upload_id, parts = sent(client)
    files = blobs(api, "files")
    foreign = sent(client)[1]
    for part_ids, more, param, word in (
        (parts[:2], {}, "part_ids", "bytes together"),
        ([*parts, "part_unknown"], {}, "part_ids.3", "has no part 'part_unknown'"),
        ([*parts[:2], foreign[2]], {}, "part_ids.2", "has no part"),
        ([parts[0], *parts], {}, "part_ids", "named twice"),
        (parts, {"md5": "0" * 32}, "md5", "in this order"),
        ([parts[1], parts[0], parts[2]], {}, "file", "line 1"),
    ):
        refused = complete(client, upload_id, part_ids, **more)
        assert refused.status_code == 400, refused.text
        error = refused.json()["error"]
        assert error["param"] == param
        assert word in error["message"]
    for body in (
        {},
        {"part_ids": []},
        {"part_ids": parts, "md5": "x"},
        {"part_ids": "abc"},
        {"part_ids": parts, "z": 1},
    ):
        assert client.post(f"/uploads/{upload_id}/complete", json=body).status_code == 400
    assert blobs(api, "files") == files
    assert client.get("/files").json()["data"] == []
    assert client.get(f"/uploads/{upload_id}").json()["status"] == "pending"
    assert complete(client, upload_id, parts).json()["status"] == "completed"


def test_completed_once_however_many_ask(api: RunningApi, client: httpx.Client) -> None:
    upload_id, parts = sent(client)
    files = blobs(api, "files")
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: complete(client, upload_id, parts), range(4)))
    assert sorted(answer.status_code for answer in answers) == [200, 409, 409, 409]
    (file,) = client.get("/files").json()["data"]
    assert blobs(api, "files") - files == {f"files/{file['id']}"}
    again = complete(client, upload_id, parts)
    assert again.json()["error"]["code"] == "upload_completed"
    assert file["id"] in again.json()["error"]["message"]
    assert send(client, upload_id, b"x").status_code == 409
    assert client.post(f"/uploads/{upload_id}/cancel").status_code == 409


def test_a_completion_that_is_sent_again_gives_the_first_answer(client: httpx.Client) -> None:
    upload_id, parts = sent(client)
    client.headers["Idempotency-Key"] = "once"
    first, again = complete(client, upload_id, parts), complete(client, upload_id, parts)
    assert (first.status_code, again.status_code) == (200, 200)
    assert first.json() == again.json()
    assert len(client.get("/files").json()["data"]) == 1


def test_an_expired_upload(api: RunningApi, client: httpx.Client) -> None:
    upload_id, parts = sent(client)
    with api.context.db.write() as session:
        session.execute(
            update(UploadRow).where(UploadRow.id == upload_id).values(expires_at=UploadRow.expires_at - 3601)
        )
    for _ in range(2):  # before and after the controller has written it
        assert client.get(f"/uploads/{upload_id}").json()["status"] == "expired"
        for refused in (
            complete(client, upload_id, parts),
            send(client, upload_id, b"x"),
            client.post(f"/uploads/{upload_id}/cancel"),
        ):
            assert (refused.status_code, refused.json()["error"]["code"]) == (409, "upload_expired")
        garbage.end_expired_uploads(api.context, QUEUE)
    garbage.delete_blobs(api.context, QUEUE)
    assert blobs(api, f"uploads/{upload_id}") == set()


def test_a_cancelled_upload_leaves_nothing(api: RunningApi, client: httpx.Client) -> None:
    upload_id, parts = sent(client)
    assert client.post(f"/uploads/{upload_id}/cancel").json()["status"] == "cancelled"
    assert complete(client, upload_id, parts).status_code == 409
    garbage.delete_blobs(api.context, QUEUE)
    assert blobs(api, f"uploads/{upload_id}") == set()


def test_another_projects_upload_is_not_there(client: httpx.Client, stranger: httpx.Client) -> None:
    upload_id, parts = sent(client)
    for answer in (
        stranger.get(f"/uploads/{upload_id}"),
        send(stranger, upload_id, b"x"),
        complete(stranger, upload_id, parts),
        stranger.post(f"/uploads/{upload_id}/cancel"),
    ):
        assert answer.status_code == 404
        assert upload_id in answer.json()["error"]["message"]
    assert len(client.get(f"/uploads/{upload_id}").json()["parts"]) == 3


@pytest.mark.slow
@pytest.mark.parametrize(
    ("body", "status", "param"),
    [
        ({"filename": "a\n.jsonl"}, 400, "filename"),
        ({"filename": "\ud800.jsonl"}, 400, "filename"),
        ({"purpose": "batch"}, 400, "purpose"),
        ({"bytes": 0}, 400, "bytes"),
        ({"bytes": "x"}, 400, "bytes"),
        ({"bytes": 2**70}, 400, "bytes"),
        ({"bytes": 2_000_001}, 413, "bytes"),
        ({"mime_type": ""}, 400, "mime_type"),
        ({"expires_after": {"anchor": "created_at", "seconds": 1}}, 400, "expires_after.seconds"),
        ({"expires_after": {"anchor": "now", "seconds": 3600}}, 400, "expires_after.anchor"),
        ({"extra": 1}, 400, "extra"),
    ],
)
def test_a_bad_announcement(client: httpx.Client, body: dict[str, Any], status: int, param: str) -> None:
    refused = announce(client, **body)
    assert (refused.status_code, refused.json()["error"]["param"]) == (status, param)


def test_bad_parts(api: RunningApi, client: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    upload_id = announce(client).json()["id"]
    path = f"/uploads/{upload_id}/parts"
    assert send(client, upload_id, b"").json()["error"]["message"] == "The part `data` is empty."
    assert client.post(path, files={"file": ("x", b"x")}).json()["error"]["message"] == "The form has no part `data`."
    two = client.post(path, files=[("data", ("x", b"x")), ("data", ("y", b"y"))])
    assert "more than one part `data`" in two.json()["error"]["message"]
    assert client.post(path, json={"data": "x"}).status_code == 400
    too_much = send(client, upload_id, b"x" * (2 * len(GOOD_JSONL) + 1))
    assert (too_much.status_code, too_much.json()["error"]["code"]) == (400, "part_too_large")
    monkeypatch.setattr(service, "MAX_PART_BYTES", 10)
    assert "64 MiB" in send(client, upload_id, b"x" * 11).json()["error"]["message"]
    assert client.get(f"/uploads/{upload_id}").json()["parts"] == []
    assert blobs(api, f"uploads/{upload_id}") == set()


def test_rows_name_the_blob_that_holds_them(api: RunningApi, client: httpx.Client) -> None:
    upload_id, parts = sent(client)
    file = complete(client, upload_id, parts).json()["file"]
    with api.context.db.read() as session:
        row = session.scalars(select(FileRow).where(FileRow.id == file["id"])).one()
    assert row.sha256 == hashlib.sha256(GOOD_JSONL).hexdigest()
    assert row.rows == 3


@pytest.mark.slow
def test_our_client_resumes_an_interrupted_upload(
    api: RunningApi, client: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_parts, "PART_BYTES", 100)
    monkeypatch.setattr(files, "IN_PARTS_FROM", 1000)
    data = GOOD_JSONL * 10
    requests: list[httpx.Request] = []

    class Breaking(httpx.HTTPTransport):
        def handle_request(self, request: httpx.Request) -> httpx.Response:
            requests.append(request)
            if request.url.path.endswith("/parts") and len(requests) > 8:
                raise httpx.ConnectError("the line is cut", request=request)
            return super().handle_request(request)

    key = client.headers["authorization"].removeprefix("Bearer ")
    told: list[tuple[int, int | None]] = []
    with (
        Burnish(base_url=api.url, api_key=key, max_retries=0, transport=Breaking()) as ours,
        pytest.raises(UploadInterrupted, match="--resume upload_") as broken,
    ):
        ours.files.create(file=data, filename="大.jsonl")
    assert len(client.get(f"/uploads/{broken.value.upload_id}").json()["parts"]) == 7
    with Burnish(base_url=api.url, api_key=key) as ours:
        with pytest.raises(UploadError, match="was announced with"):
            ours.uploads.send(broken.value.upload_id, file=data[1:])
        file = ours.uploads.send(broken.value.upload_id, file=data, on_progress=lambda *at: told.append(at))
        assert ours.files.content(file.id) == data
    assert file.filename == "大.jsonl"
    assert told[-1] == (len(data), len(data))
    assert [at for at, _ in told] == sorted(at for at, _ in told)
