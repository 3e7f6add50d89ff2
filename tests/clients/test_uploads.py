from __future__ import annotations

import hashlib
from typing import Any

import pytest

from burnish import UploadError, _parts
from burnish.resources import files
from tests.clients.scripted import Answer, Driver, Seen, Server, a_file, refusal

DATA = "数据 data\n".encode() * 100
PATH = "/v1/uploads/upload_1"


def state(**more: Any) -> dict[str, Any]:
    return {
        "id": "upload_1",
        "object": "upload",
        "created_at": 1,
        "expires_at": 3601,
        "filename": "a.txt",
        "purpose": "fine-tune",
        "bytes": len(DATA),
        "status": "pending",
        "file": None,
    } | more


def part(data: bytes, number: int) -> dict[str, Any]:
    sha256 = hashlib.sha256(data).hexdigest()
    return {"id": f"part_{number}", "created_at": 1, "upload_id": "upload_1", "bytes": len(data), "sha256": sha256}


@pytest.fixture
def parts(server: Server, monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """What the server got, part by part."""
    monkeypatch.setattr(_parts, "PART_BYTES", 300)
    monkeypatch.setattr(files, "IN_PARTS_FROM", 1000)
    got: list[bytes] = []

    def take(seen: Seen) -> Answer:
        got.append(seen.form()[2])
        return Answer(part(got[-1], len(got)))

    server.on("POST", "/v1/uploads", Answer(state()))
    server.on("POST", f"{PATH}/parts", take)
    server.on("POST", f"{PATH}/complete", Answer(state(status="completed", file=a_file())))
    return got


def test_a_large_file_goes_in_parts(driver: Driver, server: Server, parts: list[bytes]) -> None:
    told: list[int] = []
    file = driver.call("files.create", file=DATA, filename="a.txt", on_progress=lambda at, _: told.append(at))
    assert file.id == "file-1"
    assert b"".join(parts) == DATA
    assert max(map(len, parts)) == 300
    assert told[-1] == len(DATA)
    assert server.seen[0].json()["bytes"] == len(DATA)
    assert server.seen[0].json()["mime_type"] == "text/plain"
    assert server.seen[-1].json() == {"part_ids": [f"part_{n + 1}" for n in range(len(parts))]}


def test_a_small_file_does_not(driver: Driver, server: Server, parts: list[bytes]) -> None:
    server.on("POST", "/v1/files", Answer(a_file()))
    driver.call("files.create", file=DATA[:999], filename="a.txt")
    assert parts == []


def test_a_part_is_sent_again_by_itself(driver: Driver, server: Server, parts: list[bytes], naps: list[float]) -> None:
    whole = server.routes["POST", f"{PATH}/parts"]
    assert callable(whole)
    failed: list[Seen] = []

    def flaky(seen: Seen) -> Answer:
        if len(parts) == 2 and not failed:
            failed.append(seen)
            return refusal(503)
        return whole(seen)

    server.on("POST", f"{PATH}/parts", flaky)
    driver.call("files.create", file=DATA, filename="a.txt")
    assert b"".join(parts) == DATA
    assert failed[0].form()[2] == parts[2]
    assert len(naps) == 1


def test_bytes_that_changed_on_their_way(driver: Driver, server: Server, parts: list[bytes]) -> None:
    server.on("POST", f"{PATH}/parts", Answer(part(b"other", 1)))
    with pytest.raises(UploadError, match="changed on its way"):
        driver.call("files.create", file=DATA, filename="a.txt")


def test_each_step_by_hand(driver: Driver, server: Server, parts: list[bytes]) -> None:
    server.on("GET", PATH, Answer(state(parts=[part(b"x", 1)])))
    server.on("POST", f"{PATH}/cancel", Answer(state(status="cancelled")))
    made = driver.call("uploads.create", filename="a.txt", bytes=5)
    assert made.id == "upload_1"
    assert driver.call("uploads.add_part", made.id, data=b"hello").id == "part_1"
    assert parts == [b"hello"]
    assert driver.call("uploads.complete", made.id, part_ids=["part_1"], md5="0" * 32).file.id == "file-1"
    assert server.seen[-1].json() == {"part_ids": ["part_1"], "md5": "0" * 32}
    assert driver.call("uploads.retrieve", made.id).parts[0].bytes == 1
    assert driver.call("uploads.cancel", made.id).status == "cancelled"
