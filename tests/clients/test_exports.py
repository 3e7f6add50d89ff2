"""`client.models.exports`: asked for, waited for, downloaded and checked."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from burnish import DownloadCorrupt, ExportFailed, WaitTimeoutError
from tests.clients.scripted import Answer, Driver, Server, a_page
from tests.clients.test_cli import Run, run
from tests.clients.test_jobs import FILES, archive, manifest, offered

MODEL = "ft:tiny:org:客服:abc"
EXPORTS = "/v1/models/ft:tiny:org:%E5%AE%A2%E6%9C%8D:abc/exports"
GGUF = b"GGUF" + bytes(range(256))

assert run


def an_export(status: str = "ready", **more: Any) -> dict[str, Any]:
    ready = status == "ready"
    reason = {"code": "unsupported_export", "message": "词表不支持。", "param": None}
    return {
        "id": "ftexport-1",
        "object": "model.export",
        "model": MODEL,
        "fine_tuning_job_id": "ftjob-1",
        "format": "gguf",
        "precision": "q8_0",
        "status": status,
        "filename": "ft-tiny-q8_0.gguf",
        "bytes": len(GGUF) if ready else None,
        "sha256": hashlib.sha256(GGUF).hexdigest() if ready else None,
        "created_at": 1700000000,
        "finished_at": None,
        "expires_at": 1700600000,
        "error": reason if status == "failed" else None,
        "verification": {"rounding_error": 0.01} if ready else None,
        "a_field_of_the_future": 1,
        **more,
    }


def test_create_says_what_is_wanted_and_can_be_repeated(driver: Driver, server: Server) -> None:
    server.on("POST", EXPORTS, Answer(an_export("queued")))
    made = driver.call("models.exports.create", MODEL, format="gguf", precision="q8_0", expires_after=3600)
    assert (made.status, made.model) == ("queued", MODEL)
    seen = server.seen[0]
    expiry = {"anchor": "created_at", "seconds": 3600}
    assert seen.json() == {"format": "gguf", "precision": "q8_0", "expires_after": expiry}
    assert seen.headers["idempotency-key"]
    driver.call("models.exports.create", MODEL, format="adapter", idempotency_key="mine")
    assert server.seen[1].json() == {"format": "adapter"}
    assert server.seen[1].headers["idempotency-key"] == "mine"


def test_list_retrieve_and_delete(driver: Driver, server: Server) -> None:
    server.on("GET", EXPORTS, Answer(a_page([an_export(), an_export("failed", id="ftexport-2")])))
    assert [item.id for item in driver.items("models.exports.list", MODEL)] == ["ftexport-1", "ftexport-2"]
    server.on("GET", f"{EXPORTS}/ftexport-1", Answer(an_export()))
    assert driver.call("models.exports.retrieve", MODEL, "ftexport-1").verification == {"rounding_error": 0.01}
    gone = {"id": "ftexport-1", "object": "model.export", "deleted": True}
    server.on("DELETE", f"{EXPORTS}/ftexport-1", Answer(gone))
    assert driver.call("models.exports.delete", MODEL, "ftexport-1").deleted is True


def test_create_and_wait_looks_until_it_is_ready(driver: Driver, server: Server, naps: list[float]) -> None:
    server.on("POST", EXPORTS, Answer(an_export("queued")))
    states = [Answer(an_export(status)) for status in ("queued", "running", "running", "ready")]
    server.on("GET", f"{EXPORTS}/ftexport-1", states)
    told: list[str] = []
    export = driver.call(
        "models.exports.create_and_wait", MODEL, format="gguf", on_status=lambda now: told.append(now.status)
    )
    assert export.status == "ready"
    assert told == ["queued", "running", "running", "ready"]
    assert naps == sorted(naps)
    assert len(naps) == 3


def test_a_failed_export_is_an_error_with_its_reason(driver: Driver, server: Server) -> None:
    server.on("GET", f"{EXPORTS}/ftexport-1", Answer(an_export("failed")))
    with pytest.raises(ExportFailed, match="词表不支持") as caught:
        driver.call("models.exports.wait", MODEL, "ftexport-1")
    assert caught.value.export.id == "ftexport-1"


def test_waiting_ends_in_time(driver: Driver, server: Server, naps: list[float]) -> None:
    server.on("GET", f"{EXPORTS}/ftexport-1", Answer(an_export("running")))
    with pytest.raises(WaitTimeoutError, match="still running"):
        driver.call("models.exports.wait", MODEL, "ftexport-1", timeout=0)
    assert naps == []


def test_a_gguf_is_downloaded_and_checked(driver: Driver, server: Server, tmp_path: Path) -> None:
    server.on("GET", f"{EXPORTS}/ftexport-1", Answer(an_export()))
    server.on("GET", f"{EXPORTS}/ftexport-1/content", offered(GGUF))
    told: list[int] = []
    path = driver.call(
        "models.exports.download", MODEL, "ftexport-1", tmp_path, on_progress=lambda at, _: told.append(at)
    )
    assert path == tmp_path / "ft-tiny-q8_0.gguf"
    assert path.read_bytes() == GGUF
    assert told[-1] == len(GGUF)
    with pytest.raises(ValueError, match="nothing to extract"):
        driver.call("models.exports.download", MODEL, "ftexport-1", tmp_path / "x", extract=True)
    server.on("GET", f"{EXPORTS}/ftexport-1/content", Answer(GGUF[:-1] + b"!", headers=offered(GGUF).headers))
    with pytest.raises(DownloadCorrupt):
        driver.call("models.exports.download", MODEL, "ftexport-1", tmp_path / "other.gguf")
    assert not (tmp_path / "other.gguf").exists()


def test_merged_weights_are_unpacked(driver: Driver, server: Server, tmp_path: Path) -> None:
    server.on("GET", f"{EXPORTS}/ftexport-1", Answer(an_export(format="merged", filename="m-bf16.zip")))
    server.on("GET", f"{EXPORTS}/ftexport-1/content", offered(archive(FILES)))
    folder = driver.call("models.exports.download", MODEL, "ftexport-1", tmp_path / "merged", extract=True)
    found = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert found == {*FILES, "manifest.json"}
    assert (folder / "manifest.json").read_bytes() == manifest(FILES)


def test_the_command_waits_reports_and_downloads(run: Run, server: Server) -> None:
    server.on("POST", EXPORTS, Answer(an_export("queued")))
    states = [Answer(an_export("queued")), Answer(an_export())]
    server.on("GET", f"{EXPORTS}/ftexport-1", states)
    server.on("GET", f"{EXPORTS}/ftexport-1/content", offered(GGUF))
    asked = ("models", "export", MODEL, "--format", "gguf", "--precision", "q8_0", "-o", "模型.gguf")
    status, out, err = run(*asked)
    assert (status, out) == (0, "模型.gguf\n")
    assert "waits for a worker" in err
    assert "is ready, 260 B" in err
    assert Path("模型.gguf").read_bytes() == GGUF
    shown = json.loads(run(*asked, "--json")[1])
    assert (shown["path"], shown["status"]) == ("模型.gguf", "ready")


def test_the_command_lists_and_fails_in_one_sentence(run: Run, server: Server) -> None:
    server.on("GET", EXPORTS, Answer(a_page([an_export(), an_export("running", id="ftexport-2")])))
    out = run("models", "exports", MODEL)[1]
    assert "ftexport-1" in out
    assert "260 B" in out
    assert [item["id"] for item in json.loads(run("models", "exports", MODEL, "--json")[1])][1] == "ftexport-2"
    server.on("POST", EXPORTS, Answer(an_export("queued")))
    server.on("GET", f"{EXPORTS}/ftexport-1", Answer(an_export("failed")))
    status, _, err = run("models", "export", MODEL, "--format", "gguf")
    assert status == 3
    assert err.splitlines()[-1] == f"Error: The export ftexport-1 of {MODEL} failed: 词表不支持。"
    assert run("models", "export", MODEL, "--format", "onnx")[0] == 2
