"""A model's name is settled at its job's creation: another organization in the settings names new jobs alone."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import select, update

from service.chat.service import resolve_model
from service.controller.retention import Retention
from service.jobs import lifecycle, repository, results_repository
from service.jobs.lifecycle import PublishedFile
from service.keys.service import authenticate_header
from service.queue.memory import MemoryJobQueue
from service.tables.jobs import JobCheckpointRow
from service.tables.models import CheckpointPermissionRow
from tests.fixtures.databases import BOTH
from tests.fixtures.postgres import new_database
from tests.fixtures.service import RunningApi, make_context, run_api, upload
from tests.service.api.test_chains import create, created, finish
from tests.service.api.test_permissions import path, project_of

JOBS = "/fine_tuning/jobs"
CHECKPOINT_STEP = 2


class Installation:
    """One database and blob folder, which is served again and again."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        self.folder, self.settings = folder, settings

    @contextmanager
    def serve(self, organization: str) -> Generator[tuple[RunningApi, httpx.Client]]:
        context = make_context(self.folder, organization=organization, **self.settings)
        with run_api(context) as api, api.client("客服") as client:
            yield api, client


@pytest.fixture(params=BOTH)
def installation(request: pytest.FixtureRequest, tmp_path: Path) -> Generator[Installation]:
    with ExitStack() as stack:
        settings: dict[str, Any] = {}
        if request.param == "postgresql":
            settings = {"database_url": stack.enter_context(new_database()), "secret_key": "k" * 32}
        yield Installation(tmp_path, **settings)


def keep_checkpoint(api: RunningApi, job_id: str) -> None:
    """Let the job run and keep a checkpoint."""
    with api.context.db.write() as session:
        lifecycle.queue_up(session, job_id)
        assert lifecycle.start_job(session, job_id, owner="w", lease_seconds=3600) is not None
        blobs = {"blob_prefix": f"jobs/{job_id}/c", "manifest_sha256": "0"}
        results_repository.add_checkpoint(session, job_id, step=CHECKPOINT_STEP, metrics={}, **blobs)


def publish(api: RunningApi, job_id: str) -> str:
    """Let the running job succeed; return its model's name."""
    with api.context.db.write() as session:
        job = repository.by_id(session, job_id)
        assert job is not None
        return lifecycle.complete_job(
            session,
            job,
            token=job.lease_token,
            trained_tokens=1,
            kind="adapter",
            blob_prefix=f"jobs/{job_id}/output/adapter",
            manifest_sha256="0" * 64,
            result_csv=PublishedFile("csv", "x.csv", "text/csv", "k", 1, "0" * 64),
            artifacts=[],
        )


def chatted_job(api: RunningApi, client: httpx.Client, name: str) -> str | None:
    """Return the job that a chat with a model would ask."""
    with api.context.db.read() as session:
        principal = authenticate_header(session, api.context.hmac_key, client.headers["authorization"])
        return resolve_model(session, principal, api.context, name).job_id


def checkpoint_names(client: httpx.Client, job_id: str) -> list[str]:
    listed = client.get(f"{JOBS}/{job_id}/checkpoints").json()["data"]
    return [checkpoint["fine_tuned_model_checkpoint"] for checkpoint in listed]


@pytest.mark.slow
def test_models_and_checkpoints_keep_their_names_when_the_organization_changes(installation: Installation) -> None:
    with installation.serve("acme") as (api, client):
        file_id = upload(client).json()["id"]
        done = created(client, file_id, "tiny", suffix="done")["id"]
        running = created(client, file_id, "tiny")["id"]
        model = finish(api, done, checkpoint=CHECKPOINT_STEP)
        keep_checkpoint(api, running)
        unfinished = f"ft:tiny:acme::{running[-8:]}"
    assert model == f"ft:tiny:acme:done:{done[-8:]}"

    with installation.serve("nova") as (api, client):
        assert model in [entry["id"] for entry in client.get("/models").json()["data"]]
        assert client.get(f"/models/{model}").json()["id"] == model
        assert client.get(f"{JOBS}/{done}").json()["fine_tuned_model"] == model
        for job_id, name in ((done, model), (running, unfinished)):
            checkpoint = f"{name}:ckpt-step-{CHECKPOINT_STEP}"
            assert checkpoint_names(client, job_id) == [checkpoint]
            assert chatted_job(api, client, checkpoint) == job_id
            assert client.post(f"/models/{checkpoint}/exports", json={"format": "adapter"}).status_code == 200
            for start in (name, checkpoint):
                child = created(client, file_id, start)
                assert [(entry["model"], entry["job_id"]) for entry in child["lineage"]] == [(start, job_id)]
        assert chatted_job(api, client, model) == done
        assert publish(api, running) == unfinished
        assert client.get(f"/models/{unfinished}").json()["id"] == unfinished

        for name in (model, unfinished):  # nothing answers by a name that it was never given
            other = name.replace(":acme:", ":nova:")
            assert client.get(f"/models/{other}").status_code == 404
            for start in (other, f"{other}:ckpt-step-{CHECKPOINT_STEP}"):
                assert create(client, file_id, start).status_code == 404

        new = created(client, file_id, "tiny", suffix="done")
        assert finish(api, new["id"]) == f"ft:tiny:nova:done:{new['id'][-8:]}"
        assert client.get(f"{JOBS}/{done}").json()["organization_id"] == new["organization_id"] == "nova"


@pytest.mark.slow
def test_what_was_shared_stays_shared_and_ends_with_its_checkpoint(installation: Installation) -> None:
    with installation.serve("acme") as (api, client), api.client("guest") as guest:
        job_id = created(client, upload(client).json()["id"], "tiny")["id"]
        keep_checkpoint(api, job_id)
        (checkpoint,) = checkpoint_names(client, job_id)
        shared = client.post(path(checkpoint), json={"project_ids": [project_of(api, guest)]})
        assert shared.status_code == 200, shared.text

    with installation.serve("nova") as (api, client), api.client("guest") as guest:
        assert len(client.get(path(checkpoint)).json()["data"]) == 1
        child = created(guest, upload(guest).json()["id"], checkpoint)
        assert [(entry["model"], entry["job_id"]) for entry in child["lineage"]] == [(checkpoint, None)]
        publish(api, job_id)
        with api.context.db.write() as session:
            lifecycle.cancel_job(session, child["id"])
            session.execute(update(JobCheckpointRow).values(expires_at=1.0))
        assert Retention()(api.context, MemoryJobQueue()) == 1
        with api.context.db.read() as session:
            assert session.scalars(select(CheckpointPermissionRow)).all() == []
