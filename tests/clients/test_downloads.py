"""Downloads that are taken up: by the same process, by another one after a kill, and what must not be mixed up."""

from __future__ import annotations

import base64
import hashlib
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from burnish import DownloadBusy, DownloadCorrupt, NotFoundError
from burnish._partial import Origin, PartialFile
from tests.clients.scripted import Answer, Driver, Seen, Server, refusal
from tests.clients.test_jobs import FILES, archive

ADAPTER = "/v1/fine_tuning/jobs/ftjob-1/adapter"
BODY = random.Random(7).randbytes(3_000_000)
OTHER = random.Random(8).randbytes(2_000_000)


def sha256(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()


def facts(body: bytes) -> dict[str, str]:
    return {"ETag": f'"{sha256(body)}"'}


def headers_of(body: bytes) -> dict[str, str]:
    digest = base64.b64encode(hashlib.sha256(body).digest()).decode()
    return {**facts(body), "Content-Digest": f"sha-256=:{digest}:"}


def serve(body: bytes) -> Callable[[Seen], Answer]:
    """Answer as the real server does: the rest where the ETag is right, else all."""

    def answer(seen: Seen) -> Answer:
        if "range" not in seen.headers or seen.headers.get("if-range") != facts(body)["ETag"]:
            return Answer(body, headers=headers_of(body))
        start = int(seen.headers["range"].removeprefix("bytes=").removesuffix("-"))
        place = {"Content-Range": f"bytes {start}-{len(body) - 1}/{len(body)}"}
        return Answer(body[start:], status=206, headers={**facts(body), **place})

    return answer


def left_behind(target: Path, body: bytes, arrived: bytes) -> None:
    """Leave what a killed process would: `arrived`, with a note that it is of `body`."""
    partial = PartialFile(target)
    partial.restart_with(Origin(etag=f'"{sha256(body)}"', sha256=sha256(body), total=len(body)))
    partial.write(arrived)
    partial.close(keep=True)


def download(server: Server, target: Path, *options: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "burnish", "jobs", "download", "ftjob-1", "-o", str(target), *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "BURNISH_API_KEY": "k", "BURNISH_BASE_URL": server.url},
    )


def half_of(server: Server, body: bytes) -> Callable[[Seen], Answer]:
    """Send the first half and then nothing, until the test is over."""

    def answer(_: Seen) -> Answer:
        def chunks() -> Iterator[bytes]:
            yield body[: len(body) // 2]
            server.released.wait(60)

        return Answer(chunks(), headers={**headers_of(body), "Content-Length": str(len(body))})

    return answer


def wait_for(target: Path, size: int) -> Path:
    partial = target.with_name(f".{target.name}.part")
    deadline = time.monotonic() + 120
    while not (partial.exists() and partial.stat().st_size >= size):
        assert time.monotonic() < deadline, "nothing arrived"
        time.sleep(0.02)
    return partial


@pytest.mark.integration
@pytest.mark.parametrize("ending", [signal.SIGKILL, signal.SIGINT])
def test_another_process_resumes_after_a_kill(server: Server, tmp_path: Path, ending: signal.Signals) -> None:
    target = tmp_path / "适配器.zip"
    server.on("GET", ADAPTER, half_of(server, BODY))
    with download(server, target) as first:
        # What a kill loses is at most what Python had not yet written: less than this.
        partial = wait_for(target, len(BODY) // 2 - 200_000)
        first.send_signal(ending)
        first.wait(timeout=60)
    assert not target.exists()
    arrived = partial.stat().st_size
    server.on("GET", ADAPTER, serve(BODY))
    with download(server, target) as second:
        out, err = second.communicate(timeout=120)
    assert (second.returncode, out.strip()) == (0, str(target)), err
    assert server.seen[-1].headers["range"] == f"bytes={arrived}-"
    assert server.seen[-1].headers["if-range"] == facts(BODY)["ETag"]
    assert target.read_bytes() == BODY
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.integration
def test_two_processes_do_not_write_the_same_file(server: Server, tmp_path: Path) -> None:
    target = tmp_path / "a.zip"
    server.on("GET", ADAPTER, half_of(server, BODY))
    with download(server, target) as first:
        wait_for(target, 1)
        with download(server, target) as second:
            _, err = second.communicate(timeout=120)
        assert second.returncode == 1
        assert err.startswith(f"Error: {target} is being downloaded already")
        assert len(server.seen) == 1
        first.kill()
    server.on("GET", ADAPTER, serve(BODY))
    with download(server, target) as third:
        third.communicate(timeout=120)
    assert target.read_bytes() == BODY


def test_an_object_that_changed_is_downloaded_anew(driver: Driver, server: Server, tmp_path: Path) -> None:
    target = tmp_path / "a.zip"
    left_behind(target, BODY, BODY[:100_000])
    server.on("GET", ADAPTER, serve(OTHER))
    assert driver.call("jobs.download_adapter", "ftjob-1", target).read_bytes() == OTHER
    assert server.seen[0].headers["range"] == "bytes=100000-"
    assert len(server.seen) == 1
    assert list(tmp_path.iterdir()) == [target]


def test_damaged_bytes_are_downloaded_anew(driver: Driver, server: Server, tmp_path: Path) -> None:
    target = tmp_path / "a.zip"
    left_behind(target, BODY, bytes(100_000))
    server.on("GET", ADAPTER, serve(BODY))
    assert driver.call("jobs.download_adapter", "ftjob-1", target).read_bytes() == BODY
    assert [seen.headers.get("range") for seen in server.seen] == ["bytes=100000-", None]


@pytest.mark.parametrize("more", [b"", b"too much"])
def test_all_bytes_are_there_and_only_the_name_is_missing(
    driver: Driver, server: Server, tmp_path: Path, more: bytes
) -> None:
    target = tmp_path / "a.zip"
    left_behind(target, BODY, BODY + more)
    server.on("GET", ADAPTER, serve(BODY))
    assert driver.call("jobs.download_adapter", "ftjob-1", target).read_bytes() == BODY
    assert server.seen[0].headers["range"] == f"bytes={len(BODY) - 1}-"


@pytest.mark.parametrize("note", ["{", '{"etag": "W/\\"weak\\"", "sha256": "00", "total": 3000000}', None])
def test_bytes_of_unknown_origin_are_not_used(driver: Driver, server: Server, tmp_path: Path, note: str | None) -> None:
    target = tmp_path / "a.zip"
    left_behind(target, BODY, BODY[:1000])
    if note is None:
        (tmp_path / ".a.zip.part.json").unlink()
    else:
        (tmp_path / ".a.zip.part.json").write_text(note)
    server.on("GET", ADAPTER, serve(BODY))
    assert driver.call("jobs.download_adapter", "ftjob-1", target).read_bytes() == BODY
    assert "range" not in server.seen[0].headers
    assert list(tmp_path.iterdir()) == [target]


def test_an_unpacked_download_resumes_too(driver: Driver, server: Server, tmp_path: Path) -> None:
    body = archive(FILES)
    folder = tmp_path / "adapter"
    left_behind(folder, body, body[:100])
    server.on("GET", ADAPTER, serve(body))
    assert driver.call("jobs.download_adapter", "ftjob-1", folder, extract=True) == folder
    assert server.seen[0].headers["range"] == "bytes=100-"
    assert (folder / "adapter_config.json").read_bytes() == b"{}"
    assert list(tmp_path.iterdir()) == [folder]


def test_a_download_of_a_files_content_resumes_too(driver: Driver, server: Server, tmp_path: Path) -> None:
    left_behind(tmp_path / "结果.csv", BODY, BODY[:100])
    server.on("GET", "/v1/files/file-1/content", serve(BODY))
    assert driver.call("files.download", "file-1", tmp_path / "结果.csv").read_bytes() == BODY
    assert server.seen[0].headers["range"] == "bytes=100-"


def test_what_is_gone_or_wrong_leaves_nothing(driver: Driver, server: Server, tmp_path: Path) -> None:
    target = tmp_path / "a.zip"
    left_behind(target, BODY, BODY[:1000])
    server.on("GET", ADAPTER, refusal(401, "Which key?"))
    with pytest.raises(Exception, match="Which key"):
        driver.call("jobs.download_adapter", "ftjob-1", target)
    assert (tmp_path / ".a.zip.part").stat().st_size == 1000, "another key may be right"
    server.on("GET", ADAPTER, refusal(404, "No such job."))
    with pytest.raises(NotFoundError):
        driver.call("jobs.download_adapter", "ftjob-1", target)
    assert list(tmp_path.iterdir()) == []
    server.on("GET", ADAPTER, Answer(BODY[:-1], headers=headers_of(BODY)))
    with pytest.raises(DownloadCorrupt):
        driver.call("jobs.download_adapter", "ftjob-1", target)
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_is_being_written_is_refused(driver: Driver, server: Server, tmp_path: Path) -> None:
    held = PartialFile(tmp_path / "a.zip")
    with pytest.raises(DownloadBusy, match=r"a\.zip is being downloaded already"):
        driver.call("jobs.download_adapter", "ftjob-1", tmp_path / "a.zip")
    assert server.seen == []
    assert held.path.exists()
    held.close(keep=False)
    assert list(tmp_path.iterdir()) == []


def test_a_link_is_not_followed(driver: Driver, server: Server, tmp_path: Path) -> None:
    precious = tmp_path / "precious.txt"
    precious.write_text("mine")
    (tmp_path / ".a.zip.part").symlink_to(precious)
    server.on("GET", ADAPTER, serve(BODY))
    with pytest.raises(OSError, match="symbolic links"):
        driver.call("jobs.download_adapter", "ftjob-1", tmp_path / "a.zip")
    assert precious.read_text() == "mine"
