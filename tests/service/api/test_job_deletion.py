"""Deleting a job takes everything it owns, and nothing that another needs."""

from __future__ import annotations

import httpx
import pytest
from sqlalchemy import select, update

from service.controller import garbage
from service.kit.outbox import OutboxRow
from service.queue.rq import RqJobQueue
from service.tables.jobs import JobArtifactRow, JobCheckpointRow, JobEventRow
from service.tables.models import CheckpointPermissionRow
from tests.fixtures.service import RunningApi
from tests.service.api.test_chains import SHAPE, created, finish, method

JOBS = "/fine_tuning/jobs"


def test_everything_of_an_ended_job_goes(api: RunningApi, client: httpx.Client, file_id: str) -> None:
    job_id = created(client, file_id, "tiny")["id"]
    name = finish(api, job_id, checkpoint=2)
    for key in (f"jobs/{job_id}/attempt-1/output/adapter/a", f"jobs/{job_id}/attempt-1/checkpoints/step-2/b"):
        api.context.storage.put(key, [b"x"])
    (result,) = client.get(f"{JOBS}/{job_id}").json()["result_files"]
    assert client.delete(f"{JOBS}/{job_id}").json() == {"id": job_id, "object": "fine_tuning.job", "deleted": True}
    for path in (f"{JOBS}/{job_id}", f"{JOBS}/{job_id}/events", f"/models/{name}", f"/files/{result}"):
        assert client.get(path).status_code == 404
    assert client.delete(f"{JOBS}/{job_id}").status_code == 404
    assert client.get(f"/files/{file_id}").status_code == 200, "the dataset is not the job's"
    with api.context.db.read() as session:
        for table in (JobEventRow, JobCheckpointRow, JobArtifactRow, CheckpointPermissionRow):
            assert session.scalars(select(table).where(table.job_id == job_id)).all() == []
    queue = RqJobQueue("unix:///nowhere")
    garbage.delete_blobs(api.context, queue)
    assert len(list(api.context.storage.list(f"jobs/{job_id}"))) == 2, "a worker may still be writing"
    with api.context.db.write() as session:
        session.execute(update(OutboxRow).values(due_at=OutboxRow.due_at - 3600))
    garbage.delete_blobs(api.context, queue)
    assert list(api.context.storage.list(f"jobs/{job_id}")) == []


def test_what_has_not_ended_is_refused(client: httpx.Client, file_id: str) -> None:
    job_id = created(client, file_id, "tiny")["id"]
    refused = client.delete(f"{JOBS}/{job_id}")
    assert (refused.status_code, refused.json()["error"]["code"]) == (409, "job_not_ended")
    client.post(f"{JOBS}/{job_id}/cancel")
    assert client.delete(f"{JOBS}/{job_id}").status_code == 200


@pytest.mark.parametrize("role", ["start", "reward"])
def test_a_job_that_another_needs_is_refused(api: RunningApi, client: httpx.Client, file_id: str, role: str) -> None:
    parent = created(client, file_id, "tiny", method=method("reward" if role == "reward" else "supervised"))["id"]
    finish(api, parent)
    if role == "start":
        child = created(client, file_id, parent)["id"]
    else:
        child = created(client, file_id, "tiny", method=method("ppo", reward={"model": parent}))["id"]
    refused = client.delete(f"{JOBS}/{parent}")
    assert (refused.status_code, refused.json()["error"]["code"]) == (409, "job_in_use")
    assert child in refused.json()["error"]["message"]
    finish(api, child)
    assert client.delete(f"{JOBS}/{parent}").status_code == 200
    assert client.get(f"{JOBS}/{child}").json()["lineage" if role == "start" else "id"]


def test_a_whole_model_stays_while_adapters_lie_on_it(api: RunningApi, client: httpx.Client, file_id: str) -> None:
    asked = method("pretraining", architecture=SHAPE, tokenizer="byte")
    base = created(client, file_id, "from-scratch", method=asked)["id"]
    name = finish(api, base)
    child = created(client, file_id, name)["id"]
    finish(api, child)
    assert client.delete(f"{JOBS}/{base}").json()["error"]["code"] == "job_in_use"
    assert client.delete(f"{JOBS}/{child}").status_code == 200
    assert client.delete(f"{JOBS}/{base}").status_code == 200


def test_another_projects_job_is_not_there(client: httpx.Client, stranger: httpx.Client, file_id: str) -> None:
    job_id = created(client, file_id, "tiny")["id"]
    client.post(f"{JOBS}/{job_id}/cancel")
    assert stranger.delete(f"{JOBS}/{job_id}").status_code == 404
    assert client.get(f"{JOBS}/{job_id}").status_code == 200
