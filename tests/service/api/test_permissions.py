"""Models and checkpoints that are shared with other projects."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass

import httpx
import pytest
from openai import OpenAI

from service.keys.service import authenticate_header
from tests.fixtures.service import RunningApi, upload
from tests.service.api.test_chains import create, created, finish


@dataclass
class Guest:
    """Another project: its client, its id and a dataset of its own."""

    client: httpx.Client
    project: str
    file: str


def project_of(api: RunningApi, client: httpx.Client) -> str:
    with api.context.db.read() as session:
        return authenticate_header(session, api.context.hmac_key, client.headers["authorization"]).project_id


@pytest.fixture
def guest(api: RunningApi, request: pytest.FixtureRequest) -> Generator[Guest, None, None]:
    with api.client(f"guest-{request.node.name}"[:64]) as client:
        yield Guest(client, project_of(api, client), upload(client).json()["id"])


@pytest.fixture
def model(api: RunningApi, client: httpx.Client, file_id: str) -> str:
    return finish(api, created(client, file_id, "tiny", suffix="shared")["id"], checkpoint=2)


def path(name: str) -> str:
    return f"/fine_tuning/checkpoints/{name}/permissions"


def share(client: httpx.Client, name: str, *projects: str) -> httpx.Response:
    return client.post(path(name), json={"project_ids": projects})


def test_a_shared_model_can_be_started_from_until_it_is_withdrawn(
    client: httpx.Client, guest: Guest, model: str
) -> None:
    assert create(guest.client, guest.file, model).status_code == 404
    (permission,) = share(client, model, guest.project, guest.project).json()["data"]
    assert (permission["object"], permission["project_id"]) == ("checkpoint.permission", guest.project)
    assert share(client, model, guest.project).json()["data"] == [permission]
    job = created(guest.client, guest.file, model)
    assert (job["base_model"], job["lineage"][0]["model"]) == ("tiny", model)
    assert guest.client.get(f"/models/{model}").json()["id"] == model
    assert model in [entry["id"] for entry in guest.client.get("/models").json()["data"]]
    assert create(guest.client, guest.file, f"{model}:ckpt-step-2").status_code == 404, "it was not shared"
    assert guest.client.delete(f"/models/{model}").status_code == 404, "it is not theirs to delete"
    assert client.delete(f"{path(model)}/{permission['id']}").json() == {
        "id": permission["id"],
        "object": "checkpoint.permission",
        "deleted": True,
    }
    assert create(guest.client, guest.file, model).status_code == 404
    assert guest.client.get(f"/models/{model}").status_code == 404
    assert client.delete(f"{path(model)}/{permission['id']}").status_code == 404


def test_a_checkpoint_alone(client: httpx.Client, guest: Guest, model: str) -> None:
    assert share(client, f"{model}:ckpt-step-2", guest.project).status_code == 200
    assert created(guest.client, guest.file, f"{model}:ckpt-step-2")["base_model"] == "tiny"
    assert create(guest.client, guest.file, model).status_code == 404


def test_only_the_owner_shares(api: RunningApi, client: httpx.Client, guest: Guest, model: str) -> None:
    share(client, model, guest.project)
    for answer in (
        share(guest.client, model, project_of(api, client)),
        guest.client.get(path(model)),
        guest.client.delete(f"{path(model)}/cp_x"),
    ):
        assert answer.status_code == 404
    refused = share(client, model, project_of(api, client))
    assert "needs no permission" in refused.json()["error"]["message"]


def test_no_project_gets_a_permission_if_one_is_unknown(client: httpx.Client, guest: Guest, model: str) -> None:
    assert share(client, model, guest.project, "proj_unknown").status_code == 404
    assert client.get(path(model)).json()["data"] == []
    assert create(guest.client, guest.file, model).status_code == 404
    for body in ({}, {"project_ids": []}, {"project_ids": guest.project}, {"project_ids": [1]}):
        assert client.post(path(model), json=body).status_code == 400


def test_names_that_cannot_be_shared(client: httpx.Client, guest: Guest, file_id: str, model: str) -> None:
    assert share(client, "tiny", guest.project).status_code == 404
    assert share(client, f"{model}:ckpt-step-9", guest.project).status_code == 400
    waiting = created(client, file_id, "tiny")["id"]
    refused = share(client, waiting, guest.project)
    assert "by its model's name: ft:tiny:" in refused.json()["error"]["message"]


def test_a_deleted_model_is_shared_no_more(client: httpx.Client, guest: Guest, model: str) -> None:
    share(client, model, guest.project)
    assert client.delete(f"/models/{model}").status_code == 200
    assert guest.client.get(f"/models/{model}").status_code == 404
    assert create(guest.client, guest.file, model).status_code == 404


def test_openais_client(api: RunningApi, client: httpx.Client, guest: Guest, model: str) -> None:
    key = client.headers["authorization"].removeprefix("Bearer ")
    with OpenAI(base_url=api.url, api_key=key, _strict_response_validation=True) as official:
        permissions = official.fine_tuning.checkpoints.permissions
        made = permissions.create(model, project_ids=[guest.project])
        assert [permission.project_id for permission in made.data] == [guest.project]
        with api.client("another guest") as another:
            permissions.create(model, project_ids=[project_of(api, another)])
        listed = [permission.project_id for permission in permissions.list(model, limit=1)]
        assert listed[-1] == guest.project
        assert len(listed) == 2, "two pages of one"
        ascending = permissions.list(model, order="ascending", project_id=guest.project)
        assert [permission.id for permission in ascending] == [made.data[0].id]
        assert permissions.delete(made.data[0].id, fine_tuned_model_checkpoint=model).deleted
