"""`Idempotency-Key`, on every kind of creation that has it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from sqlalchemy import update

from service.controller.garbage import remove_abandoned
from service.queue.rq import RqJobQueue
from service.tables.keys import IdempotentAnswerRow
from tests.fixtures.service import GOOD_JSONL, RunningApi, upload

JOBS = "/fine_tuning/jobs"


def body(file_id: str, **more: Any) -> dict[str, Any]:
    return {"model": "tiny", "training_file": file_id, **more}


def test_a_job_that_is_sent_again_is_made_once(client: httpx.Client, file_id: str) -> None:
    key = {"Idempotency-Key": "a1"}
    first = client.post(JOBS, json=body(file_id, suffix="one"), headers=key)
    again = client.post(JOBS, json=body(file_id, suffix="one"), headers=key)
    assert (first.status_code, again.status_code) == (200, 200)
    assert again.json() == first.json()
    assert "idempotent-replayed" not in first.headers
    assert again.headers["idempotent-replayed"] == "true"
    client.post(f"{JOBS}/{first.json()['id']}/cancel")
    assert client.post(JOBS, json=body(file_id, suffix="one"), headers=key).json() == first.json()
    assert len(client.get(JOBS).json()["data"]) == 1


def test_the_same_key_for_another_request_is_refused(client: httpx.Client, file_id: str) -> None:
    key = {"Idempotency-Key": "钥".encode().hex()}
    assert client.post(JOBS, json=body(file_id), headers=key).status_code == 200
    other = client.post(JOBS, json=body(file_id, seed=2), headers=key)
    assert (other.status_code, other.headers["x-should-retry"]) == (409, "false")
    assert other.json()["error"]["code"] == "idempotency_key_reused"
    assert (
        client.post(
            "/files", files={"file": ("a.jsonl", GOOD_JSONL)}, data={"purpose": "fine-tune"}, headers=key
        ).status_code
        == 409
    )
    assert len(client.get(JOBS).json()["data"]) == 1
    assert len(client.get("/files").json()["data"]) == 1


def test_a_refused_request_keeps_nothing(client: httpx.Client, file_id: str) -> None:
    key = {"Idempotency-Key": "b"}
    assert client.post(JOBS, json=body("file-unknown"), headers=key).status_code == 404
    assert client.post(JOBS, json=body(file_id), headers=key).status_code == 200


def test_another_project_has_keys_of_its_own(client: httpx.Client, stranger: httpx.Client, file_id: str) -> None:
    key = {"Idempotency-Key": "shared"}
    theirs = upload(stranger).json()["id"]
    mine = client.post(JOBS, json=body(file_id), headers=key).json()["id"]
    assert stranger.post(JOBS, json=body(theirs), headers=key).json()["id"] != mine


def test_an_upload_that_is_sent_again_is_stored_once(api: RunningApi, client: httpx.Client) -> None:
    key = {"Idempotency-Key": "c"}

    def send(name: str = "数据.jsonl") -> httpx.Response:
        return client.post("/files", files={"file": (name, GOOD_JSONL)}, data={"purpose": "fine-tune"}, headers=key)

    before = {blob.key for blob in api.context.storage.list("files")}
    first, again = send(), send()  # their multipart boundaries differ
    assert again.json() == first.json()
    assert send("other.jsonl").status_code == 409
    assert [file["id"] for file in client.get("/files").json()["data"]] == [first.json()["id"]]
    assert client.get(f"/files/{first.json()['id']}/content").content == GOOD_JSONL
    blobs = {blob.key for blob in api.context.storage.list("files")} - before
    assert blobs == {f"files/{first.json()['id']}"}


def test_requests_at_the_same_time_make_one(client: httpx.Client, file_id: str) -> None:
    def send(_: int) -> dict[str, Any]:
        return client.post(JOBS, json=body(file_id), headers={"Idempotency-Key": "d"}).json()

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(send, range(8)))
    assert {answer["id"] for answer in answers} == {client.get(JOBS).json()["data"][0]["id"]}
    assert len(client.get(JOBS).json()["data"]) == 1


@pytest.mark.parametrize("key", [b"", b"x" * 256, "é".encode(), b"a\tb"])
def test_a_header_that_is_not_a_key(client: httpx.Client, file_id: str, key: bytes) -> None:
    refused = client.post(JOBS, json=body(file_id), headers=[(b"Idempotency-Key", key)])
    assert refused.status_code == 400
    assert refused.json()["error"]["param"] == "Idempotency-Key"
    assert client.get(JOBS).json()["data"] == []


def test_a_day_later_the_key_is_free(api: RunningApi, client: httpx.Client, file_id: str) -> None:
    key = {"Idempotency-Key": "e"}
    first = client.post(JOBS, json=body(file_id), headers=key).json()["id"]
    with api.context.db.write() as session:
        session.execute(update(IdempotentAnswerRow).values(created_at=IdempotentAnswerRow.created_at - 86_401))
    remove_abandoned(api.context, RqJobQueue("unix:///nowhere"))
    assert client.post(JOBS, json=body(file_id), headers=key).json()["id"] != first
