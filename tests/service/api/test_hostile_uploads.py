"""Uploads that are made to hurt cost the API next to nothing, and take no other project's place."""

from __future__ import annotations

import gzip
import threading
import time
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import psutil
import pytest

from tests.fixtures.packed import zstd
from tests.fixtures.service import GOOD_JSONL, RunningApi, make_context, run_api, upload

LARGE = GOOD_JSONL * 2000
HOSTILE = {
    "bad lines": gzip.compress(b"x\n" * (1 << 21)),
    "bad lines of Chinese": zstd.compress("好\n".encode() * (1 << 21)),
    "empty objects": gzip.compress(b"{}\n" * (1 << 21)),
    "blank lines": zstd.compress(b"\n" * (30 << 20)),
    "empty frames": zstd.compress(b"") * 200_000,
    "bad lines, not packed": b"x\n" * (1 << 20),
}


@pytest.fixture
def api(tmp_path: Path) -> Generator[RunningApi]:
    """Serve with four places, of which one project has one."""
    with run_api(make_context(tmp_path, upload_checks=4)) as running:
        yield running


@pytest.mark.slow
@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_upload_is_refused_at_little_cost(api: RunningApi, name: str) -> None:
    data = HOSTILE[name]
    with api.client() as client:
        client.get("/files")
        before = psutil.Process().cpu_times()
        answers = [upload(client, data) for _ in range(3)]
        used = psutil.Process().cpu_times()
    assert {answer.status_code for answer in answers} == {400}
    assert {answer.json()["error"]["code"] for answer in answers} == {"invalid_file_format"}
    own = used.user + used.system - before.user - before.system
    assert own < 1.5 + 3 * len(data) * 100e-9
    assert used.children_user - before.children_user < 6


def test_the_first_problems_are_reported_and_where_the_check_stopped(api: RunningApi) -> None:
    with api.client() as client:
        error = upload(client, gzip.compress(LARGE + b"x\n" * (1 << 20)), "训练.jsonl").json()["error"]
    assert len(error["problems"]) == 20
    assert error["problems"][0]["line"] == 6001
    assert "; and 980 more; the check stopped at line 7001" in error["message"]


def slowly(data: bytes, go_on: threading.Event) -> Iterator[bytes]:
    """Yield a form of a file; its second half when it may go on."""
    yield b'--b\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nfine-tune\r\n'
    yield b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.jsonl"\r\n\r\n'
    yield data[: len(data) // 2]
    assert go_on.wait(60)
    yield data[len(data) // 2 :] + b"\r\n--b--\r\n"


def post_slowly(client: httpx.Client, data: bytes, go_on: threading.Event) -> httpx.Response:
    headers = {"Content-Type": "multipart/form-data; boundary=b"}
    return client.post("/files", content=slowly(data, go_on), headers=headers)


@pytest.mark.slow
def test_an_upload_that_stands_still_holds_its_own_project_alone(api: RunningApi) -> None:
    go_on, children = threading.Event(), psutil.Process().children
    with api.client() as own, api.client("other") as other, ThreadPoolExecutor() as pool:
        first = pool.submit(post_slowly, own, LARGE, go_on)
        deadline = time.monotonic() + 30
        while not any("check_process" in " ".join(child.cmdline()) for child in children()):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        second = pool.submit(upload, own, LARGE)
        assert upload(other, LARGE).status_code == 200
        assert upload(own).status_code == 200  # a small file needs no place
        assert not first.done()
        assert not second.done()
        go_on.set()
        assert (first.result().status_code, second.result().status_code) == (200, 200)


def test_an_interrupted_upload_releases_its_place(api: RunningApi) -> None:
    def broken() -> Iterator[bytes]:
        yield b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.jsonl"\r\n\r\n'
        yield LARGE
        raise ConnectionAbortedError

    with api.client() as client:
        for _ in range(3):
            with pytest.raises(ConnectionAbortedError):
                client.post("/files", content=broken(), headers={"Content-Type": "multipart/form-data; boundary=b"})
        answer = upload(client, LARGE)
        assert (answer.status_code, answer.json()["bytes"]) == (200, len(LARGE))
    assert not [child for child in psutil.Process().children() if "check_process" in " ".join(child.cmdline())]


def test_a_completed_upload_is_checked_in_a_process_too(api: RunningApi) -> None:
    data = gzip.compress(b"x\n" * (1 << 21))
    with api.client() as client:
        body = {"filename": "a.jsonl", "purpose": "fine-tune", "bytes": len(data), "mime_type": "application/gzip"}
        made = client.post("/uploads", json=body).json()
        part = client.post(f"/uploads/{made['id']}/parts", files={"data": ("a", data)}).json()
        before = psutil.Process().cpu_times()
        answer = client.post(f"/uploads/{made['id']}/complete", json={"part_ids": [part["id"]]})
        used = psutil.Process().cpu_times()
    assert answer.status_code == 400
    assert "the check stopped at line 1001" in answer.json()["error"]["message"]
    assert used.user - before.user < 1.5
