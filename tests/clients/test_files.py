from __future__ import annotations

import base64
import hashlib
import io
import os
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest

from burnish import DownloadCorrupt, InternalServerError, UploadError
from tests.clients.scripted import Answer, Driver, Server, a_file, a_page, refusal

ROWS = '{"messages": [{"role": "user", "content": "你好"}]}\n'.encode() * 5000


def test_upload_of_a_path_with_a_chinese_name(driver: Driver, server: Server, tmp_path: Path) -> None:
    path = tmp_path / '训练 "数据".jsonl'
    path.write_bytes(ROWS)
    server.on("POST", "/v1/files", Answer(a_file()))
    told: list[tuple[int, int | None]] = []
    file = driver.call("files.create", file=path, on_progress=lambda done, total: told.append((done, total)))
    fields, name, content = server.seen[0].form()
    assert (fields, content) == ({"purpose": "fine-tune"}, ROWS)
    # Browsers and httpx write a quotation mark in a file's name as %22 (WHATWG HTML, multipart/form-data).
    assert name == "训练 %22数据%22.jsonl"
    assert (file.id, file.filename) == ("file-1", "数据.jsonl")
    assert told[-1] == (len(ROWS), len(ROWS))
    assert len(told) > 2
    assert server.seen[0].headers["idempotency-key"]


@pytest.mark.parametrize("source", ["bytes", "file", "str"])
def test_upload_of_other_sources(driver: Driver, server: Server, tmp_path: Path, source: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"skipped" + ROWS if source == "file" else ROWS)
    server.on("POST", "/v1/files", Answer(a_file()))
    with path.open("rb") as opened:
        opened.seek(7 if source == "file" else 0)
        file = {"bytes": ROWS, "file": opened, "str": str(path)}[source]
        driver.call("files.create", file=file, purpose="evals")
        assert not opened.closed
    fields, name, content = server.seen[0].form()
    assert (fields["purpose"], content) == ("evals", ROWS)
    assert name == ("data.jsonl" if source == "bytes" else "a.jsonl")


def test_upload_again_starts_at_the_beginning(driver: Driver, server: Server, naps: list[float]) -> None:
    server.on("POST", "/v1/files", [refusal(503), Answer(a_file())])
    driver.call("files.create", file=io.BytesIO(ROWS), filename="行.jsonl")
    assert [seen.form()[1:] for seen in server.seen] == [("行.jsonl", ROWS)] * 2
    assert server.seen[0].headers["idempotency-key"] == server.seen[1].headers["idempotency-key"]


def test_a_pipe_is_sent_in_chunks_and_only_once(driver: Driver, server: Server, naps: list[float]) -> None:
    def pipe() -> io.BufferedReader:
        reader, writer = os.pipe()
        with os.fdopen(writer, "wb") as file:
            file.write(ROWS[:10_000])
        return os.fdopen(reader, "rb")

    server.on("POST", "/v1/files", [Answer(a_file()), refusal(503)])
    told: list[int | None] = []
    with pipe() as file:
        driver.call("files.create", file=file, on_progress=lambda _, total: told.append(total))
    assert server.seen[0].headers["transfer-encoding"] == "chunked"
    assert server.seen[0].form()[2] == ROWS[:10_000]
    assert set(told) == {None}
    with pipe() as file, pytest.raises(InternalServerError):
        driver.call("files.create", file=file)
    assert len(server.seen) == 2


def test_memory_does_not_grow_with_the_file(driver: Driver, server: Server, tmp_path: Path) -> None:
    path = tmp_path / "large.jsonl"
    with path.open("wb") as file:
        file.truncate(48 * 2**20)
    server.discard_bodies = True
    server.on("POST", "/v1/files", Answer(a_file()))
    tracemalloc.start()
    try:
        driver.call("files.create", file=path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert int(server.seen[0].headers["content-length"]) > 48 * 2**20
    assert peak < 8 * 2**20


def test_what_cannot_be_uploaded(driver: Driver, server: Server, tmp_path: Path) -> None:
    with pytest.raises(UploadError, match=r"Cannot read .*missing.jsonl: No such file"):
        driver.call("files.create", file=tmp_path / "missing.jsonl")
    with pytest.raises(TypeError, match="binary mode"):
        driver.call("files.create", file=io.StringIO("text"))


def test_a_file_that_gets_shorter(driver: Driver, server: Server, tmp_path: Path) -> None:
    path = tmp_path / "shrinking.jsonl"
    path.write_bytes(ROWS)
    with pytest.raises(UploadError, match=r"shrinking\.jsonl got shorter"):
        driver.call("files.create", file=path, on_progress=lambda *_: os.truncate(path, 10))


def test_a_file_that_grows_is_sent_as_it_was(driver: Driver, server: Server, tmp_path: Path) -> None:
    path = tmp_path / "growing.jsonl"
    path.write_bytes(ROWS)
    server.on("POST", "/v1/files", Answer(a_file()))

    def grow(*_: object) -> None:
        with path.open("ab") as file:
            file.write(b"more")

    driver.call("files.create", file=path, on_progress=grow)
    assert server.seen[0].form()[2] == ROWS


def test_pages_follow_the_last_id(driver: Driver, server: Server) -> None:
    pages = {"": ([1, 2], True), "file-2": ([3, 4], True), "file-4": ([5], False)}

    def answer(seen: object) -> Answer:
        numbers, more = pages[seen.query.get("after", [""])[0]]
        return Answer(a_page([a_file(number) for number in numbers], more))

    server.on("GET", "/v1/files", answer)
    found = driver.items("files.list", purpose="fine-tune", limit=2)
    assert [file.id for file in found] == [f"file-{number}" for number in range(1, 6)]
    assert all(seen.query["purpose"] == ["fine-tune"] for seen in server.seen)
    page = driver.call("files.list")
    assert (page.has_more, len(page.data)) == (True, 2)


def test_retrieve_and_delete(driver: Driver, server: Server) -> None:
    server.on("GET", "/v1/files/file-1", Answer(a_file()))
    server.on("DELETE", "/v1/files/file-1", Answer({"id": "file-1", "object": "file", "deleted": True}))
    assert driver.call("files.retrieve", "file-1").bytes == 5
    assert driver.call("files.delete", "file-1").deleted


def test_content_in_memory_and_to_disk(driver: Driver, server: Server, tmp_path: Path) -> None:
    digest = base64.b64encode(hashlib.sha256(ROWS).digest()).decode()
    content = "/v1/files/file-1/content"
    server.on("GET", content, Answer(ROWS))
    assert driver.call("files.content", "file-1") == ROWS
    assert driver.call("files.download", "file-1", tmp_path).read_bytes() == ROWS
    server.on("GET", content, Answer(ROWS, headers={"Content-Digest": f"sha-256=:{digest}:"}))
    path = driver.call("files.download", "file-1", tmp_path / "sub" / "结果.csv")
    assert (path, path.read_bytes()) == (tmp_path / "sub" / "结果.csv", ROWS)
    server.on("GET", content, Answer(ROWS[:-1], headers={"Content-Digest": f"sha-256=:{digest}:"}))
    with pytest.raises(DownloadCorrupt):
        driver.call("files.download", "file-1", path)
    assert path.read_bytes() == ROWS


def test_a_late_refusal_of_a_large_upload_is_read(make: Callable[..., Driver], server: Server) -> None:
    server.discard_bodies = True
    server.on("POST", "/v1/files", refusal(413, "文件太大"))
    with pytest.raises(Exception, match="文件太大"):
        make(max_retries=0).call("files.create", file=b"0" * 10**6)
