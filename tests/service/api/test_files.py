from __future__ import annotations

import base64
import errno
import hashlib
import json
import os

import httpx
import pytest

from tests.fixtures.service import GOOD_JSONL, GOOD_ROW, RunningApi, upload


def stored(api: RunningApi) -> set[str]:
    return {blob.key for blob in api.context.storage.list("files")}


def test_a_file_goes_in_and_comes_out_unchanged(client: httpx.Client) -> None:
    answer = upload(client, filename="训练 数据.jsonl")
    assert answer.status_code == 200
    file = answer.json()
    assert file["object"] == "file"
    assert file["filename"] == "训练 数据.jsonl"
    assert file["bytes"] == len(GOOD_JSONL)
    assert (file["purpose"], file["status"]) == ("fine-tune", "processed")
    content = client.get(f"/files/{file['id']}/content")
    assert content.content == GOOD_JSONL
    digest = base64.b64encode(hashlib.sha256(GOOD_JSONL).digest()).decode()
    assert content.headers["content-digest"] == f"sha-256=:{digest}:"
    assert client.get(f"/files/{file['id']}").json() == file


def test_the_purpose_may_follow_the_file(client: httpx.Client) -> None:
    body = (
        b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.jsonl"\r\n\r\n'
        + GOOD_JSONL
        + b'\r\n--b\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nfine-tune\r\n--b--\r\n'
    )
    answer = client.post("/files", content=body, headers={"Content-Type": "multipart/form-data; boundary=b"})
    assert answer.status_code == 200
    assert client.get(f"/files/{answer.json()['id']}/content").content == GOOD_JSONL


def test_lists_are_pages(client: httpx.Client) -> None:
    ids = [upload(client).json()["id"] for _ in range(5)]
    first = client.get("/files", params={"limit": 2}).json()
    assert [file["id"] for file in first["data"]] == ids[:2:-1]
    assert (first["has_more"], first["first_id"], first["last_id"]) == (True, ids[4], ids[3])
    rest = client.get("/files", params={"after": ids[3], "limit": 10}).json()
    assert [file["id"] for file in rest["data"]] == ids[2::-1]
    assert rest["has_more"] is False
    upward = client.get("/files", params={"order": "asc", "limit": 1}).json()
    assert upward["data"][0]["id"] == ids[0]
    assert client.get("/files", params={"purpose": "fine-tune-results"}).json()["data"] == []


def test_a_deleted_file_is_gone(client: httpx.Client, file_id: str) -> None:
    assert client.delete(f"/files/{file_id}").json() == {"id": file_id, "object": "file", "deleted": True}
    for answer in (
        client.get(f"/files/{file_id}"),
        client.get(f"/files/{file_id}/content"),
        client.delete(f"/files/{file_id}"),
    ):
        assert answer.status_code == 404
        assert answer.json()["error"]["message"] == f"No such File object: {file_id}"


def test_an_expiry_is_kept(client: httpx.Client) -> None:
    data = {"purpose": "fine-tune", "expires_after[anchor]": "created_at", "expires_after[seconds]": "3600"}
    file = client.post("/files", files={"file": ("a.jsonl", GOOD_JSONL)}, data=data).json()
    assert file["expires_at"] - file["created_at"] == 3600


def test_another_project_sees_nothing(client: httpx.Client, stranger: httpx.Client, file_id: str) -> None:
    assert file_id not in {file["id"] for file in stranger.get("/files").json()["data"]}
    for answer in (
        stranger.get(f"/files/{file_id}"),
        stranger.get(f"/files/{file_id}/content"),
        stranger.delete(f"/files/{file_id}"),
        stranger.get("/files", params={"after": file_id}),
    ):
        assert answer.status_code in (400, 404)
        assert file_id in answer.json()["error"]["message"]
    assert client.get(f"/files/{file_id}").status_code == 200


BROKEN = {
    "not utf-8": (b'{"messages": "\xff"}\n', "line 1"),
    "nul": (b'{"messages": "\x00"}\n', "NUL"),
    "broken json": (GOOD_JSONL + b'{"messages": [\n', "line 4"),
    "not an object": (b"[1, 2]\n", "line 1"),
    "empty": (b"", "no row"),
    "only blanks": (b"\n\n", "no row"),
    "nan": (b'{"messages": NaN}\n', "line 1"),
    "lone surrogate": (b'{"messages": "\\ud800"}\n', "line 1"),
    "duplicate key": (b'{"messages": 1, "messages": 2}\n', "messages"),
    "too deep": (b'{"a":' * 2000 + b"1" + b"}" * 2000 + b"\n", "line 1"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_dataset_is_refused_whole(api: RunningApi, client: httpx.Client, name: str) -> None:
    data, expected = BROKEN[name]
    before = stored(api)
    answer = upload(client, data)
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert error["code"] == "invalid_file_format"
    assert error["param"] == "file"
    assert "train.jsonl" in error["message"]
    assert expected.lower() in error["message"].lower()
    assert stored(api) == before
    assert client.get("/files").json()["data"] == []


def test_the_first_twenty_problems_come_at_once(client: httpx.Client) -> None:
    error = upload(client, b'{"a":\n' * 30).json()["error"]
    assert [problem["line"] for problem in error["problems"]] == list(range(1, 21))
    assert "10 more" in error["message"]


def test_a_file_over_the_limit_is_refused(api: RunningApi, client: httpx.Client) -> None:
    before = stored(api)
    row = json.dumps(GOOD_ROW).encode() + b"\n"
    answer = upload(client, row * 30_000)
    assert answer.status_code == 413
    assert "2000000 bytes" in answer.json()["error"]["message"]
    assert stored(api) == before


TEXT = "从前有座山,\nقصة 😀\n".encode()


def test_plain_text_goes_in_and_comes_out_unchanged(client: httpx.Client) -> None:
    answer = upload(client, TEXT, filename="故事.txt")
    assert answer.status_code == 200
    file = answer.json()
    assert (file["filename"], file["bytes"], file["status"]) == ("故事.txt", len(TEXT), "processed")
    assert client.get(f"/files/{file['id']}/content").content == TEXT


MARK = b"\xef\xbb\xbf"
NAMES = ["训练", "train", "train.json", "TRAIN.JSONL", "train.csv", "train.jsonl.bak", ".", "a.GZ"]


@pytest.mark.parametrize("filename", NAMES)
def test_the_content_of_a_file_decides_whatever_its_name(client: httpx.Client, filename: str) -> None:
    answer = upload(client, MARK + GOOD_JSONL, filename=filename)
    assert answer.status_code == 200, answer.text
    assert answer.json()["filename"] == filename
    content = client.get(f"/files/{answer.json()['id']}/content")
    assert content.content == MARK + GOOD_JSONL
    assert content.headers["content-type"] == "application/jsonl"
    announced = {"filename": filename, "purpose": "fine-tune", "bytes": 9, "mime_type": "application/json"}
    assert client.post("/uploads", json=announced).json()["filename"] == filename


@pytest.mark.parametrize("header", ['name="file"', 'name="file"; filename=""', 'name="file"; filename="a/"'])
def test_a_file_without_a_name_gets_a_plain_one(client: httpx.Client, header: str) -> None:
    form = f"--b\r\nContent-Disposition: form-data; {header}\r\n\r\n".encode() + GOOD_JSONL
    form += b'\r\n--b\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nfine-tune\r\n--b--\r\n'
    answer = client.post("/files", content=form, headers={"Content-Type": "multipart/form-data; boundary=b"})
    assert (answer.status_code, answer.json()["filename"]) == (200, "upload")


@pytest.mark.parametrize("filename", ["故事", "story.md"])
def test_text_under_another_name_is_refused_with_the_name_to_give(client: httpx.Client, filename: str) -> None:
    error = upload(client, TEXT, filename=filename).json()["error"]
    assert error["code"] == "invalid_file_format"
    assert "line 1: is not JSON" in error["message"]
    assert "let its name end with .txt" in error["message"]
    assert upload(client, MARK + TEXT, filename=f"{filename}.TXT").status_code == 200


BROKEN_TEXTS = {
    "empty": (b"", "no text"),
    "not utf-8": (TEXT + b"\xb0\xa1", "line 3: is not UTF-8"),
    "cut in a character": (TEXT[:1], "line 1: is not UTF-8"),
    "a NUL": (TEXT + b"\0", "line 3: has a NUL"),
    "a zip": (b"PK\x03\x04....", "zip"),
    "gzip": (b"\x1f\x8b\x08\x00", "gzip"),
}


@pytest.mark.parametrize("name", BROKEN_TEXTS)
def test_a_broken_text_is_refused_whole(api: RunningApi, client: httpx.Client, name: str) -> None:
    data, expected = BROKEN_TEXTS[name]
    before = stored(api)
    answer = upload(client, data, filename="a.txt")
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert (error["code"], error["param"]) == ("invalid_file_format", "file")
    assert error["message"].startswith("a.txt has 1 problem: ")
    assert expected in error["message"]
    assert stored(api) == before


FORMS = {
    "no purpose": ({"file": ("a.jsonl", GOOD_JSONL)}, {}, "purpose", "is missing"),
    "wrong purpose": ({"file": ("a.jsonl", GOOD_JSONL)}, {"purpose": "assistants"}, "purpose", "assistants"),
    "results are ours": ({"file": ("a.jsonl", GOOD_JSONL)}, {"purpose": "fine-tune-results"}, "purpose", "fine-tune"),
    "no file": ({"other": ("a.jsonl", GOOD_JSONL)}, {"purpose": "fine-tune"}, "file", "no part `file`"),
    "not rows": ({"file": ("表.csv", "问,答\n".encode())}, {"purpose": "fine-tune"}, "file", "表.csv has 1 problem"),
    "bad anchor": (
        {"file": ("a.jsonl", GOOD_JSONL)},
        {"purpose": "fine-tune", "expires_after[anchor]": "now", "expires_after[seconds]": "3600"},
        "expires_after.anchor",
        "created_at",
    ),
    "bad seconds": (
        {"file": ("a.jsonl", GOOD_JSONL)},
        {"purpose": "fine-tune", "expires_after[anchor]": "created_at", "expires_after[seconds]": "12"},
        "expires_after.seconds",
        "3600",
    ),
}


@pytest.mark.parametrize("name", FORMS)
def test_a_wrong_form_is_refused_with_its_field(api: RunningApi, client: httpx.Client, name: str) -> None:
    files, data, param, expected = FORMS[name]
    before = stored(api)
    answer = client.post("/files", files=files, data=data)
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert error["param"] == param
    assert expected in error["message"]
    assert stored(api) == before


@pytest.mark.parametrize("body", [b"", b"hello", b"--b\r\n", b"--b\r\nContent-Disposition: form-data"])
def test_a_torn_form_is_refused(client: httpx.Client, body: bytes) -> None:
    for content_type in ("multipart/form-data; boundary=b", "multipart/form-data", "application/json", ""):
        answer = client.post("/files", content=body, headers={"Content-Type": content_type})
        assert answer.status_code == 400, content_type
        assert answer.json()["error"]["message"]


def test_a_path_in_the_file_name_goes_nowhere(client: httpx.Client) -> None:
    file = upload(client, filename="../../etc/passwd.jsonl").json()
    assert file["filename"] == "passwd.jsonl"


def test_a_full_store_is_a_507_with_nothing_kept(
    api: RunningApi, client: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = stored(api)

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        answer = upload(client)
    assert answer.status_code == 507
    error = answer.json()["error"]
    assert (error["code"], answer.headers["x-should-retry"]) == ("insufficient_storage", "false")
    assert "no room left" in error["message"]
    assert stored(api) == before
    assert client.get("/files").json()["data"] == []
