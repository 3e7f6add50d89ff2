"""What a job may ask about how long things are kept, and how that shows."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from sqlalchemy import select, update

from service.controller.retention import Retention
from service.jobs import lifecycle, results_repository
from service.jobs.lifecycle import PublishedFile
from service.kit.db import db_now
from service.queue.memory import MemoryJobQueue
from service.tables.jobs import JobArtifactRow, JobCheckpointRow
from service.tables.models import FineTunedModelRow
from tests.fixtures.service import RunningApi
from tests.service.api.test_chains import create, created

DAY = {"anchor": "created_at", "seconds": 86400}
JOBS = "/fine_tuning/jobs"


def test_a_job_shows_its_requested_retention(client: httpx.Client, file_id: str) -> None:
    job = created(client, file_id, "tiny", keep_checkpoints=2, expires_after={"checkpoints": DAY})
    shown = {"checkpoints": DAY, "artifacts": None}
    assert (job["keep_checkpoints"], job["expires_after"]) == (2, shown)
    assert client.get(f"{JOBS}/{job['id']}").json()["expires_after"] == shown
    plain = created(client, file_id, "tiny")
    assert (plain["keep_checkpoints"], plain["expires_after"]) == (None, None)


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"keep_checkpoints": 0}, "keep_checkpoints"),
        ({"keep_checkpoints": True}, "keep_checkpoints"),
        ({"keep_checkpoints": 2**70}, "keep_checkpoints"),
        ({"expires_after": DAY}, "expires_after.anchor"),
        ({"expires_after": {"checkpoints": {**DAY, "seconds": 60}}}, "expires_after.checkpoints.seconds"),
        ({"expires_after": {"artifacts": {**DAY, "anchor": "last_active_at"}}}, "expires_after.artifacts.anchor"),
        ({"expires_after": {"artifacts": {"anchor": "created_at"}}}, "expires_after.artifacts.seconds"),
        ({"expires_after": {"模型": DAY}}, "expires_after.模型"),
        ({"expires_after": 5}, "expires_after"),
    ],
)
def test_requests_that_are_refused(client: httpx.Client, file_id: str, body: dict[str, Any], param: str) -> None:
    refused = create(client, file_id, "tiny", **body)
    assert refused.status_code == 400
    assert refused.json()["error"]["param"] == param
    assert client.get(JOBS).json()["data"] == []


def finish(api: RunningApi, job_id: str) -> str:
    home = f"jobs/{job_id}/attempt-1/output"
    archive = PublishedFile("adapter", "a.zip", "application/zip", f"{home}/adapter.zip", 1, "0" * 64)
    csv = PublishedFile("csv", "x.csv", "text/csv", f"{home}/x.csv", 1, "0" * 64)
    for key in (archive.blob_key, csv.blob_key):
        api.context.storage.put(key, [b"x"])
    with api.context.db.write() as session:
        lifecycle.queue_up(session, job_id)
        job = lifecycle.start_job(session, job_id, owner="w", lease_seconds=60)
        assert job is not None
        blobs = {"blob_prefix": "p", "manifest_sha256": "0"}
        results_repository.add_checkpoint(session, job_id, step=2, metrics={}, expires_in=86400, **blobs)
        return lifecycle.complete_job(
            session,
            job,
            token=job.lease_token,
            trained_tokens=1,
            kind="adapter",
            blob_prefix=f"{home}/adapter",
            manifest_sha256="0" * 64,
            result_csv=csv,
            artifacts=[archive],
        )


def test_what_expires_says_when_and_is_gone_then(api: RunningApi, client: httpx.Client, file_id: str) -> None:
    job_id = created(client, file_id, "tiny", expires_after={"artifacts": DAY, "checkpoints": DAY})["id"]
    name = finish(api, job_id)
    (checkpoint,) = client.get(f"{JOBS}/{job_id}/checkpoints").json()["data"]
    assert checkpoint["expires_at"] - checkpoint["created_at"] in (86400, 86401)
    model = client.get(f"/models/{name}").json()
    assert model["expires_at"] - model["created"] in (86400, 86401)
    (result,) = client.get(f"{JOBS}/{job_id}").json()["result_files"]
    assert client.get(f"/files/{result}").json()["expires_at"] == pytest.approx(model["expires_at"], abs=2)
    assert client.get(f"{JOBS}/{job_id}/adapter").status_code == 200
    with api.context.db.write() as session:
        for table in (JobArtifactRow, FineTunedModelRow, JobCheckpointRow):
            session.execute(update(table).where(table.job_id == job_id).values(expires_at=db_now() - 1))
    Retention()(api.context, MemoryJobQueue())
    assert client.get(f"/models/{name}").status_code == 404
    assert client.get(f"/files/{result}").status_code == 404
    assert name not in [item["id"] for item in client.get("/models").json()["data"]]
    assert client.get(f"{JOBS}/{job_id}/checkpoints").json()["data"] == []
    gone = client.get(f"{JOBS}/{job_id}/adapter")
    assert (gone.status_code, gone.json()["error"]["code"]) == (404, "expired")
    assert create(client, file_id, f"{name}:ckpt-step-2").status_code == 400
    assert create(client, file_id, name).status_code == 404
    assert client.get(f"{JOBS}/{job_id}").json()["fine_tuned_model"] == name
    with api.context.db.read() as session:
        assert session.scalars(select(JobArtifactRow).where(JobArtifactRow.job_id == job_id)).all() == []


def test_a_base_has_no_end(client: httpx.Client) -> None:
    assert "expires_at" not in client.get("/models/tiny").json()
