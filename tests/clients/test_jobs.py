from __future__ import annotations

import base64
import hashlib
import io
import json
import stat
import zipfile
from pathlib import Path
from typing import Any

import pytest

from burnish import AsyncBurnish, Burnish, DownloadCorrupt
from tests.clients.scripted import Answer, Driver, Seen, Server, a_job, a_page, an_event, refusal

JOBS = "/v1/fine_tuning/jobs"
JOB = f"{JOBS}/ftjob-1"
FILES = {"adapter_config.json": b"{}", "adapter_model.safetensors": bytes(200_000), "说明/README.md": "你好".encode()}


def test_create_sends_the_wires_fields(driver: Driver, server: Server) -> None:
    server.on("POST", JOBS, Answer(a_job("queued")))
    job = driver.call(
        "jobs.create",
        model="tiny",
        training_file="file-1",
        validation_file="file-2",
        suffix="语气",
        seed=0,
        metadata={"队": "a"},
        hyperparameters={"n_epochs": 2, "batch_size": "auto", "lora": {"rank": 8}},
        idempotency_key="mine",
    )
    hyperparameters = {"n_epochs": 2, "batch_size": "auto", "lora": {"rank": 8}}
    assert server.seen[0].json() == {
        "model": "tiny",
        "training_file": "file-1",
        "validation_file": "file-2",
        "suffix": "语气",
        "seed": 0,
        "metadata": {"队": "a"},
        "method": {"type": "supervised", "supervised": {"hyperparameters": hyperparameters}},
    }
    assert server.seen[0].headers["idempotency-key"] == "mine"
    assert (job.phase, job.a_field_of_the_future) == ("queued", {"x": 1})


def test_integrations_in_openais_shape(driver: Driver, server: Server) -> None:
    wandb = [{"type": "wandb", "wandb": {"project": "项目", "tags": ["a"]}}]
    server.on("POST", JOBS, Answer(a_job("queued", integrations=wandb)))
    job = driver.call("jobs.create", model="tiny", training_file="file-1", integrations=wandb)
    assert server.seen[0].json()["integrations"] == wandb == job.integrations


def test_create_leaves_out_what_is_not_said(driver: Driver, server: Server) -> None:
    server.on("POST", JOBS, Answer(a_job("queued")))
    driver.call("fine_tuning.jobs.create", model="tiny", training_file="file-1", suffix=None)
    assert server.seen[0].json() == {"model": "tiny", "training_file": "file-1"}
    driver.call("jobs.create", model="tiny", training_file="file-1", method="dpo")
    assert server.seen[1].json()["method"] == {"type": "dpo", "dpo": {"hyperparameters": {}}}


def test_read_and_cancel(driver: Driver, server: Server) -> None:
    server.on("GET", JOB, Answer(a_job("running", phase="paused", status_of_tomorrow=1)))
    server.on("POST", f"{JOB}/cancel", Answer(a_job("cancelled")))
    assert driver.call("jobs.retrieve", "ftjob-1").phase == "paused"
    assert driver.call("jobs.cancel", "ftjob-1").status == "cancelled"
    server.on("POST", f"{JOB}/pause", Answer(a_job("queued") | {"phase": "paused"}))
    server.on("POST", f"{JOB}/resume", Answer(a_job("queued") | {"phase": "queued"}))
    server.on("DELETE", JOB, Answer({"id": "ftjob-1", "object": "fine_tuning.job", "deleted": True}))
    assert driver.call("jobs.delete", "ftjob-1").deleted
    assert driver.call("jobs.pause", "ftjob-1").phase == "paused"
    assert driver.call("jobs.resume", "ftjob-1").phase == "queued"


def test_lists(driver: Driver, server: Server) -> None:
    server.on("GET", JOBS, Answer(a_page([a_job()])))
    assert len(driver.items("jobs.list", limit=5, metadata={"team": "甲"})) == 1
    assert server.seen[0].query == {"limit": ["5"], "metadata[team]": ["甲"]}
    first = Answer(a_page([an_event(3), an_event(2)], has_more=True))
    server.on("GET", f"{JOB}/events", [first, Answer(a_page([an_event(1)]))])
    assert [event.message for event in driver.items("jobs.events", "ftjob-1")] == ["第3步", "第2步", "第1步"]
    assert server.seen[-1].query == {"after": ["ftevent-2"]}
    checkpoint = {
        "id": "ftckpt_1",
        "created_at": 1,
        "fine_tuned_model_checkpoint": "ft:tiny:org::1:ckpt-step-5",
        "fine_tuning_job_id": "ftjob-1",
        "step_number": 5,
        "metrics": {"train_loss": 0.5},
    }
    server.on("GET", f"{JOB}/checkpoints", Answer(a_page([checkpoint])))
    assert driver.items("jobs.checkpoints", "ftjob-1")[0].metrics == {"train_loss": 0.5}


def test_report_by_accept(driver: Driver, server: Server) -> None:
    def report(seen: Any) -> Answer:
        html = seen.headers["accept"] == "text/html"
        return Answer("<p>报告</p>".encode()) if html else Answer({"题": "报告"})

    server.on("GET", f"{JOB}/report", report)
    assert driver.call("jobs.report", "ftjob-1") == {"题": "报告"}
    assert driver.call("jobs.report_html", "ftjob-1") == "<p>报告</p>"


def manifest(files: dict[str, bytes]) -> bytes:
    entries = [
        {"path": path, "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()} for path, data in files.items()
    ]
    return json.dumps({"version": 1, "files": entries}).encode()


def archive(files: dict[str, bytes], listed: bytes | None = None, link: str | None = None) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as out:
        for path, data in files.items():
            out.writestr(path, data)
        if link:
            info = zipfile.ZipInfo(link)
            info.external_attr = (stat.S_IFLNK | 0o777) << 16
            out.writestr(info, "/etc/passwd")
        out.writestr("manifest.json", manifest(files) if listed is None else listed)
    return buffer.getvalue()


def offered(body: bytes, *, cut: int | None = None) -> Answer:
    digest = base64.b64encode(hashlib.sha256(body).digest()).decode()
    headers = {"Content-Digest": f"sha-512=:AAAA:, sha-256=:{digest}:", "Content-Length": str(len(body))}
    return Answer(body[:cut], headers=headers, cut=cut is not None)


def test_the_adapter_as_a_zip(driver: Driver, server: Server, tmp_path: Path) -> None:
    body = archive(FILES)
    server.on("GET", f"{JOB}/adapter", offered(body))
    told: list[tuple[int, int | None]] = []
    path = driver.call(
        "jobs.download_adapter", "ftjob-1", tmp_path / "适配器.zip", on_progress=lambda *at: told.append(at)
    )
    assert path.read_bytes() == body
    assert told[-1] == (len(body), len(body))
    assert driver.call("jobs.download_adapter", "ftjob-1", tmp_path) == tmp_path / "ftjob-1-adapter.zip"
    assert len(list(tmp_path.iterdir())) == 2
    assert server.seen[0].headers["accept-encoding"] == "identity"


def test_the_adapter_unpacked(driver: Driver, server: Server, tmp_path: Path) -> None:
    unlisted = {**FILES, "surprise.py": b"import os"}
    server.on("GET", f"{JOB}/adapter", offered(archive(unlisted, manifest(FILES))))
    folder = tmp_path / "adapter"
    folder.mkdir()
    assert driver.call("jobs.download_adapter", "ftjob-1", folder, extract=True) == folder
    found = {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    assert found == {**FILES, "manifest.json": manifest(FILES)}
    assert list(tmp_path.iterdir()) == [folder]


def test_a_folder_in_use_is_refused_before_the_download(driver: Driver, server: Server, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("keep")
    with pytest.raises(FileExistsError, match="new or empty"):
        driver.call("jobs.download_adapter", "ftjob-1", tmp_path, extract=True)
    assert server.seen == []


def test_a_broken_download_begins_again(driver: Driver, server: Server, tmp_path: Path, naps: list[float]) -> None:
    body = archive(FILES)
    server.on("GET", f"{JOB}/adapter", [offered(body, cut=100), offered(body)])
    assert driver.call("jobs.download_adapter", "ftjob-1", tmp_path / "a.zip").read_bytes() == body
    assert len(naps) == 1


def test_a_broken_download_resumes_where_it_was(
    driver: Driver, server: Server, tmp_path: Path, naps: list[float]
) -> None:
    body = archive(FILES)

    def answer(seen: Seen) -> Answer:
        whole = offered(body)
        if "range" not in seen.headers:
            return Answer(body[:100], headers={**whole.headers, "ETag": '"v1"'}, cut=True)
        assert seen.headers["if-range"] == '"v1"'
        start = int(seen.headers["range"].removeprefix("bytes=").removesuffix("-"))
        end = min(start + 100, len(body))
        headers = {"Content-Range": f"bytes {start}-{end - 1}/{len(body)}", "Content-Length": str(len(body) - start)}
        return Answer(body[start:end], status=206, headers=headers, cut=end < len(body))

    server.on("GET", f"{JOB}/adapter", answer)
    told: list[int] = []
    path = driver.call(
        "jobs.download_adapter", "ftjob-1", tmp_path / "a.zip", on_progress=lambda at, _: told.append(at)
    )
    assert path.read_bytes() == body
    assert told == sorted(told)
    assert len(naps) == len(server.seen) - 1 > 2, "more breaks than an unlucky request may have"


@pytest.mark.parametrize("digest", ["right length", "not base64", "none"])
def test_a_corrupt_download_leaves_nothing(driver: Driver, server: Server, tmp_path: Path, digest: str) -> None:
    stated = {
        "right length": {"Content-Digest": f"sha-256=:{base64.b64encode(bytes(32)).decode()}:"},
        "not base64": {"Content-Digest": "sha-256=:???:"},
        "none": {},
    }[digest]
    server.on("GET", f"{JOB}/adapter", Answer(archive(FILES), headers=stated))
    for extract in (False, True):
        with pytest.raises(DownloadCorrupt):
            driver.call("jobs.download_adapter", "ftjob-1", tmp_path / "a", extract=extract)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        (archive({**FILES, "../escape.txt": b"x"}), "leads outside"),
        (archive({**FILES, "/escape.txt": b"x"}), "leads outside"),
        (archive({**FILES, "a/../../escape.txt": b"x"}), "leads outside"),
        (archive({**FILES, "C:escape.txt": b"x"}), "leads outside"),
        (archive({**FILES, "..\\escape.txt": b"x"}), "leads outside"),
        (archive(FILES, manifest({**FILES, "../escape.txt": b"x"})), "leads outside"),
        (archive(FILES, link="adapter_link"), "is a link"),
        (archive(FILES, manifest({**FILES, "weights.bin": b"x"})), "lacks weights.bin"),
        (archive(FILES, manifest({**FILES, "adapter_config.json": b"[]"})), "adapter_config.json differs"),
        (archive(FILES, manifest({**FILES, "adapter_config.json": b"{"})), "adapter_config.json differs"),
        (archive(FILES, b"{}"), r"manifest\.json cannot be read"),
        (archive(FILES, b'{"files": []}'), r"manifest\.json cannot be read"),
        (b"PK no zip at all", "archive cannot be read"),
    ],
)
def test_an_unsafe_archive_leaves_nothing(
    driver: Driver, server: Server, tmp_path: Path, body: bytes, sentence: str
) -> None:
    server.on("GET", f"{JOB}/adapter", offered(body))
    inner = tmp_path / "inner"
    with pytest.raises(DownloadCorrupt, match=sentence):
        driver.call("jobs.download_adapter", "ftjob-1", inner / "adapter", extract=True)
    assert [path.name for path in tmp_path.rglob("*")] == ["inner"]


def test_an_archive_without_manifest(driver: Driver, server: Server, tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as out:
        out.writestr("adapter_config.json", "{}")
    server.on("GET", f"{JOB}/adapter", offered(buffer.getvalue()))
    with pytest.raises(DownloadCorrupt, match=r"holds no manifest\.json"):
        driver.call("jobs.download_adapter", "ftjob-1", tmp_path / "a", extract=True)


def test_no_adapter_yet(driver: Driver, server: Server, tmp_path: Path) -> None:
    server.on("GET", f"{JOB}/adapter", refusal(404, "The job has not succeeded."))
    with pytest.raises(Exception, match="has not succeeded"):
        driver.call("jobs.download_adapter", "ftjob-1", tmp_path / "a.zip")
    assert list(tmp_path.iterdir()) == []


def test_both_clients_offer_the_same() -> None:
    def offers(kind: type) -> set[str]:
        client = kind(base_url="http://127.0.0.1:1", api_key="k")
        parts = {"": client, "files": client.files, "jobs": client.jobs, "models": client.models}
        return {f"{name}.{item}" for name, part in parts.items() for item in dir(part) if item[0] != "_"}

    assert offers(Burnish) == offers(AsyncBurnish)
