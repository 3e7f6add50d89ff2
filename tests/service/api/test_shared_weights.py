"""What a project that models are shared with can take out of the service, and what it learns of their owner."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import httpx
import pytest
from sqlalchemy import update

from service.chat.errors import ModelNotReady
from service.chat.service import resolve_model
from service.controller.waiting import release_waiting
from service.jobs import lifecycle, repository, results_repository
from service.jobs import service as jobs
from service.jobs.schemas import JobCreate
from service.keys.service import Principal, authenticate_header
from service.previews.service import _COLUMNS, job_of
from service.queue.memory import MemoryJobQueue
from service.tables.exports import ModelExportRow
from service.tables.jobs import JobArtifactRow, JobRow
from service.tables.previews import PreviewRow
from tests.fixtures.service import RunningApi, upload
from tests.service.api.test_chains import SHAPE, create, created, end, finish, method
from tests.service.api.test_permissions import Guest, guest, path, project_of

__all__ = ["guest"]


@pytest.fixture
def third(api: RunningApi, request: pytest.FixtureRequest) -> Generator[Guest, None, None]:
    """A project that the guest shares with."""
    with api.client(f"third-{request.node.name}"[:64]) as client:
        yield Guest(client, project_of(api, client), upload(client).json()["id"])


@pytest.fixture
def model(api: RunningApi, client: httpx.Client, file_id: str) -> str:
    return finish(api, created(client, file_id, "tiny", suffix="shared")["id"], checkpoint=2)


def share(client: httpx.Client, name: str, project: str, **body: str) -> dict[str, Any]:
    answer = client.post(path(name), json={"project_ids": [project], **body})
    assert answer.status_code == 200, answer.text
    return answer.json()["data"][0]


def weights(api: RunningApi, client: httpx.Client, job_id: str, name: str) -> dict[str, tuple[int, str | None]]:
    """Return how each way to a job's weights is answered, once there are some."""
    with api.context.db.write() as session:
        for artifact in ("adapter", "model"):
            key = f"jobs/{job_id}/{artifact}"
            stored = api.context.storage.put(key, [b"zip"])
            row = JobArtifactRow(
                job_id=job_id, name=artifact, filename="a.zip", media_type="application/zip",
                blob_key=key, bytes=3, sha256=stored.sha256,
            )  # fmt: skip
            session.add(row)
    found = {}
    for artifact in ("adapter", "model"):
        found[artifact] = client.get(f"/fine_tuning/jobs/{job_id}/{artifact}")
    for wanted in (name, f"{name}:ckpt-step-2"):
        for kind in ("adapter", "merged", "gguf"):
            found[f"{kind} of {wanted}"] = client.post(f"/models/{wanted}/exports", json={"format": kind})
        assert client.get(f"/models/{wanted}/exports").json()["has_more"] is False
    return {
        what: (answer.status_code, answer.json()["error"]["code"] if answer.is_error else None)
        for what, answer in found.items()
    }


BLOCKED = {(403, "download_blocked")}


def principal_of(api: RunningApi, client: httpx.Client) -> Principal:
    with api.context.db.read() as session:
        return authenticate_header(session, api.context.hmac_key, client.headers["authorization"])


def test_a_plain_permission_lets_the_results_out(
    api: RunningApi, client: httpx.Client, guest: Guest, model: str
) -> None:
    assert share(client, model, guest.project)["adapter_download"] == "allowed"
    job = created(guest.client, guest.file, model)
    assert job["adapter_download"] == "allowed"
    name = finish(api, job["id"], checkpoint=2)
    assert not BLOCKED & set(weights(api, guest.client, job["id"], name).values())


@pytest.mark.slow
def test_blocked_weights_stay_in_over_generations(
    api: RunningApi, client: httpx.Client, guest: Guest, model: str
) -> None:
    """Each generation starts by another kind of name: ft:…, ftjob-…, a checkpoint, an unfinished job."""
    assert share(client, model, guest.project, adapter_download="blocked")["adapter_download"] == "blocked"
    start = model
    for generation in range(4):
        job = created(guest.client, guest.file, start, method=method("supervised"))
        waiting = created(guest.client, guest.file, job["id"])
        assert (job["adapter_download"], waiting["adapter_download"]) == ("blocked", "blocked")
        name = finish(api, job["id"], checkpoint=2)
        assert set(weights(api, guest.client, job["id"], name).values()) == BLOCKED
        start = (name, job["id"], f"{name}:ckpt-step-2", name)[generation]
        with api.context.db.read() as session:
            assert resolve_model(session, principal_of(api, guest.client), api.context, name).job_id == job["id"]
    listed = guest.client.get("/fine_tuning/jobs").json()["data"]
    assert {job["adapter_download"] for job in listed} == {"blocked"}
    refused = guest.client.get(f"/fine_tuning/jobs/{job['id']}/adapter").json()["error"]
    assert name in refused["message"]
    assert "shared with adapter_download blocked" in refused["message"]


def test_a_shared_checkpoint_and_the_owners_own_downloads(
    api: RunningApi, client: httpx.Client, guest: Guest, file_id: str, model: str
) -> None:
    share(client, f"{model}:ckpt-step-2", guest.project, adapter_download="blocked")
    job = created(guest.client, guest.file, f"{model}:ckpt-step-2")
    name = finish(api, job["id"], checkpoint=2)
    assert set(weights(api, guest.client, job["id"], name).values()) == BLOCKED
    own = created(client, file_id, model)
    assert own["adapter_download"] == "allowed"
    assert not BLOCKED & set(weights(api, client, own["id"], finish(api, own["id"], checkpoint=2)).values())


def test_an_export_that_is_there_is_not_handed_out(
    api: RunningApi, client: httpx.Client, guest: Guest, model: str
) -> None:
    share(client, model, guest.project)
    job = created(guest.client, guest.file, model)
    name = finish(api, job["id"])
    export = guest.client.post(f"/models/{name}/exports", json={"format": "adapter"}).json()["id"]
    with api.context.db.write() as session:
        blob = api.context.storage.put(f"jobs/{job['id']}/x", [b"zip"])
        ready = {"status": "ready", "blob_key": blob.key, "bytes": 3, "sha256": blob.sha256}
        session.execute(update(ModelExportRow).where(ModelExportRow.id == export).values(**ready))
    content = f"/models/{name}/exports/{export}/content"
    assert guest.client.get(content).content == b"zip"
    with api.context.db.write() as session:
        session.execute(update(JobRow).where(JobRow.id == job["id"]).values(adapter_download="blocked"))
    assert guest.client.get(content).json()["error"]["code"] == "download_blocked"


def test_a_download_block_holds_for_models_shared_further(
    api: RunningApi, client: httpx.Client, guest: Guest, third: Guest, model: str
) -> None:
    share(client, model, guest.project, adapter_download="blocked")
    name = finish(api, created(guest.client, guest.file, model)["id"])
    refused = guest.client.post(path(name), json={"project_ids": [third.project], "adapter_download": "allowed"})
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "adapter_download")
    assert share(guest.client, name, third.project)["adapter_download"] == "blocked"
    job = created(third.client, third.file, name)
    assert job["adapter_download"] == "blocked"
    assert set(weights(api, third.client, job["id"], finish(api, job["id"], checkpoint=2)).values()) == BLOCKED


def test_a_permission_changes_for_jobs_to_come(client: httpx.Client, guest: Guest, model: str) -> None:
    first = share(client, model, guest.project)
    before = created(guest.client, guest.file, model)
    blocked = share(client, model, guest.project, adapter_download="blocked")
    assert blocked == first | {"adapter_download": "blocked"}
    assert share(client, model, guest.project) == blocked, "a word about projects alone does not lift it"
    assert client.get(path(model)).json()["data"] == [blocked]
    during = created(guest.client, guest.file, model)
    assert share(client, model, guest.project, adapter_download="allowed") == first
    shown = [guest.client.get(f"/fine_tuning/jobs/{job['id']}").json() for job in (before, during)]
    assert [job["adapter_download"] for job in shown] == ["allowed", "blocked"]
    for wrong in ("no", "", True, 1):
        body = {"project_ids": [guest.project], "adapter_download": wrong}
        assert client.post(path(model), json=body).status_code == 400


def whole_model(api: RunningApi, client: httpx.Client, file_id: str) -> str:
    job = created(client, file_id, "from-scratch", method=method("pretraining", architecture=SHAPE, tokenizer="byte"))
    return finish(api, job["id"])


def test_a_whole_model_under_an_adapter(api: RunningApi, client: httpx.Client, guest: Guest, file_id: str) -> None:
    """An adapter's merged export has the base's weights in it, so the base's permission counts too."""
    base = whole_model(api, client, file_id)
    adapter = finish(api, created(client, file_id, base)["id"])
    share(client, adapter, guest.project)
    refused = create(guest.client, guest.file, adapter)
    assert refused.status_code == 400
    assert "lies on a whole model that is not shared with this project" in refused.json()["error"]["message"]
    assert base not in refused.text
    share(client, base, guest.project, adapter_download="blocked")
    job = created(guest.client, guest.file, adapter)
    assert (job["base_model"], job["adapter_download"]) == (base, "blocked")
    assert created(guest.client, guest.file, base)["adapter_download"] == "blocked"


def test_a_reward_model_in_use_blocks_nothing(
    api: RunningApi, client: httpx.Client, guest: Guest, file_id: str
) -> None:
    reward = finish(api, created(client, file_id, "tiny", method=method("reward"))["id"])
    share(client, reward, guest.project, adapter_download="blocked")
    asks = method("ppo", reward={"model": reward})
    assert created(guest.client, guest.file, "tiny", method=asks)["adapter_download"] == "allowed"
    onward = created(guest.client, guest.file, reward, method=method("reward"))
    assert onward["adapter_download"] == "blocked"


def test_a_preview_shows_it(api: RunningApi, client: httpx.Client, guest: Guest, model: str) -> None:
    share(client, model, guest.project, adapter_download="blocked")
    body = JobCreate(model=model, training_file=guest.file)
    with api.context.db.read() as session:
        job, _ = jobs.draft_job(session, principal_of(api, guest.client), api.context, body)
    columns = {"adapter_download": job.adapter_download, "foreign_parents": job.foreign_parents, "model": model}
    assert columns["adapter_download"] == "blocked"
    assert job_of(PreviewRow(id="p", job=columns)).adapter_download == "blocked"
    assert job_of(PreviewRow(id="p", job={"model": model})).adapter_download == "allowed", "asked of an earlier release"
    assert {"adapter_download", "foreign_parents"} <= set(_COLUMNS)


# What the guest may read of the owner


def secrets_of(api: RunningApi, client: httpx.Client) -> list[str]:
    """Return every id and hash of the owner's."""
    found = [project_of(api, client)]
    for job in client.get("/fine_tuning/jobs").json()["data"]:
        found += [job["id"], job["training_file"], *job["result_files"]]
        found += [entry["model"] for entry in job["lineage"]]
        with api.context.db.read() as session:
            row = repository.by_id(session, job["id"])
            assert row is not None
            found += [row.training_sha256 or "", *(c.id for c in results_repository.all_checkpoints(session, row.id))]
    return [secret for secret in found if secret]


def everything(guest: Guest) -> str:
    """Return all that the guest can read of its own."""
    answers = [guest.client.get(place) for place in ("/fine_tuning/jobs", "/models", "/files")]
    for job in answers[0].json()["data"]:
        place = f"/fine_tuning/jobs/{job['id']}"
        answers += [guest.client.get(f"{place}{end}") for end in ("", "/events", "/checkpoints")]
        if job["status"] in ("failed", "succeeded"):
            answers.append(guest.client.get(f"{place}/events", params={"stream": "true"}))
    answers += [guest.client.get(f"/models/{job['fine_tuned_model']}") for job in answers[0].json()["data"]]
    return "\n".join(answer.text for answer in answers)


@pytest.fixture
def chain(api: RunningApi, client: httpx.Client, file_id: str) -> str:
    """The last of two generations of the owner's."""
    first = finish(api, created(client, file_id, "tiny", suffix="secret-parent")["id"])
    return finish(api, created(client, file_id, first, suffix="shared", validation_file=file_id)["id"], checkpoint=2)


@pytest.mark.slow
@pytest.mark.parametrize("ending", ["", ":ckpt-step-2"])
def test_a_lineage_begins_with_the_shared_name(
    api: RunningApi, client: httpx.Client, guest: Guest, third: Guest, chain: str, ending: str
) -> None:
    share(client, chain + ending, guest.project)
    job = created(guest.client, guest.file, chain + ending)
    given = {"model": chain + ending, "job_id": None, "method": None, "training_sha256": None}
    assert job["lineage"] == [given | {"validation_sha256": None}]
    name = finish(api, job["id"])
    second = created(guest.client, guest.file, name)
    assert second["lineage"][0] == job["lineage"][0]
    assert (second["lineage"][1]["job_id"], second["lineage"][1]["method"]) == (job["id"], "supervised")
    share(guest.client, name, third.project)
    onward = created(third.client, third.file, name)
    assert [entry["model"] for entry in onward["lineage"]] == [name]
    for secret in secrets_of(api, client):
        if secret != guest.file:
            for who in (guest, third):
                told = everything(who)
                assert secret not in told.replace(_hash_of_own(api, who), "")


def _hash_of_own(api: RunningApi, who: Guest) -> str:
    with api.context.db.read() as session:
        job = repository.by_id(session, who.client.get("/fine_tuning/jobs").json()["data"][0]["id"])
        assert job is not None
        return job.training_sha256 or "-"


def test_what_is_waited_for_is_called_by_the_shared_name(
    api: RunningApi, client: httpx.Client, guest: Guest, file_id: str
) -> None:
    start, reward = (created(client, file_id, "tiny", method=method(kind)) for kind in ("supervised", "reward"))
    names = [f"ft:tiny:{start['organization_id']}::{job['id'][-8:]}" for job in (start, reward)]
    for name in names:
        share(client, name, guest.project)
    asks = method("ppo", reward={"model": names[1]})
    job = created(guest.client, guest.file, names[0], method=asks)
    assert job["waits_for"] == names
    with api.context.db.write() as session:
        lifecycle.queue_up(session, job["id"])
    waiting = guest.client.get(f"/fine_tuning/jobs/{job['id']}").json()
    assert waiting["queue"]["message"] == f"It waits for {names[0]} and {names[1]} to succeed."
    with api.context.db.read() as session, pytest.raises(ModelNotReady) as refused:
        resolve_model(session, principal_of(api, guest.client), api.context, names[0])
    assert f"The job that makes {names[0]} has not ended" in refused.value.message
    end(api, start["id"])  # with a message of the owner's
    release_waiting(api.context, MemoryJobQueue())
    failed = guest.client.get(f"/fine_tuning/jobs/{job['id']}").json()
    assert failed["error"]["message"].startswith(f"The job of {names[0]}, which this job starts from, failed, so")
    late = create(guest.client, guest.file, names[0])
    assert (late.status_code, late.json()["error"]["code"]) == (409, "parent_failed")
    assert f"The job of {names[0]} failed" in late.text
    told = everything(guest) + refused.value.message + late.text
    assert [secret for secret in (start["id"], reward["id"], file_id, "it broke") if secret in told] == []


def test_a_deleted_checkpoint_reveals_nothing_about_others(
    api: RunningApi, client: httpx.Client, guest: Guest, model: str
) -> None:
    share(client, f"{model}:ckpt-step-2", guest.project)
    with api.context.db.write() as session:
        job = next(job for job in client.get("/fine_tuning/jobs").json()["data"])
        blobs = {"blob_prefix": "x", "manifest_sha256": "0"}
        results_repository.add_checkpoint(session, job["id"], step=7, metrics={}, **blobs)
        gone = results_repository.checkpoint_at(session, job["id"], 2)
        assert gone is not None
        results_repository.remove_checkpoint(session, gone)
    answer = create(guest.client, guest.file, f"{model}:ckpt-step-2")
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "model_not_found")
    assert "7" not in answer.json()["error"]["message"].replace(model, "")


def test_a_graders_models_are_listed_by_shared_names(client: httpx.Client, guest: Guest, model: str) -> None:
    share(client, model, guest.project)
    grader = {
        "type": "score_model", "name": "g", "model": "other", "input": [{"role": "user", "content": "x"}],
    }  # fmt: skip
    rl = {"type": "reinforcement", "reinforcement": {"grader": grader, "hyperparameters": {}}}
    answer = create(guest.client, guest.file, model, method=rl)
    assert answer.status_code == 400
    assert model in answer.text
    assert "ftjob-" not in answer.text


def test_the_owner_does_not_learn_the_guests_ids(client: httpx.Client, guest: Guest, file_id: str, model: str) -> None:
    share(client, model, guest.project)
    theirs = created(guest.client, guest.file, model)
    (job,) = client.get("/fine_tuning/jobs").json()["data"]
    refused = client.delete(f"/fine_tuning/jobs/{job['id']}")
    assert refused.json()["error"]["code"] == "job_in_use"
    assert "jobs of other projects that it is shared with" in refused.text
    own = created(client, file_id, model)
    both = client.delete(f"/fine_tuning/jobs/{job['id']}").text
    assert f"{own['id']} and jobs of other projects" in both
    assert theirs["id"] not in refused.text + both


def test_a_shared_model_is_owned_by_the_organization(
    api: RunningApi, client: httpx.Client, guest: Guest, model: str
) -> None:
    share(client, model, guest.project)
    organization = api.context.settings.organization
    assert guest.client.get(f"/models/{model}").json()["owned_by"] == organization
    listed = {entry["id"]: entry["owned_by"] for entry in guest.client.get("/models").json()["data"]}
    assert listed[model] == organization
    assert client.get(f"/models/{model}").json()["owned_by"] == project_of(api, client)
