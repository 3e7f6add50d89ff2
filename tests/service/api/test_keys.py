"""Scopes of keys, and the administration of projects and keys."""

from __future__ import annotations

from collections.abc import Generator

import httpx
import pytest
from sqlalchemy import update

from service.keys.service import SCOPES, Scope, create_key
from service.keys.tables import ApiKey
from tests.fixtures.service import RunningApi, upload

PROJECTS = "/organization/projects"


def client_with(api: RunningApi, project: str, *scopes: Scope) -> httpx.Client:
    with api.context.db.write() as session:
        token = create_key(session, api.context.hmac_key, project=project, name="n", scopes=scopes)[1]
    return httpx.Client(base_url=api.url, headers={"Authorization": f"Bearer {token}"}, timeout=30)


@pytest.fixture
def admin(api: RunningApi) -> Generator[httpx.Client, None, None]:
    with client_with(api, "operators", *SCOPES) as client:
        yield client


def test_a_key_that_may_only_read(
    api: RunningApi, client: httpx.Client, file_id: str, request: pytest.FixtureRequest
) -> None:
    with client_with(api, f"test-{request.node.name}"[:64], "read") as reader:
        assert [file["id"] for file in reader.get("/files").json()["data"]] == [file_id]
        for refused in (
            upload(reader),
            reader.delete(f"/files/{file_id}"),
            reader.post("/fine_tuning/jobs", json={"model": "tiny", "training_file": file_id}),
        ):
            assert refused.status_code == 403
            error = refused.json()["error"]
            assert error["code"] == "insufficient_permissions"
            assert error["message"].startswith("This API key has the scopes read; this request needs 'write'.")
    assert client.get(f"/files/{file_id}").status_code == 200


def test_a_key_that_may_only_write(api: RunningApi) -> None:
    with client_with(api, "writers", "write") as writer:
        assert upload(writer).status_code == 200
        assert writer.get("/files").status_code == 403


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", PROJECTS),
        ("POST", PROJECTS),
        ("GET", f"{PROJECTS}/proj_x"),
        ("GET", f"{PROJECTS}/proj_x/api_keys"),
        ("POST", f"{PROJECTS}/proj_x/api_keys"),
        ("DELETE", f"{PROJECTS}/proj_x/api_keys/key_x"),
    ],
)
def test_administration_needs_its_scope(client: httpx.Client, method: str, path: str) -> None:
    refused = client.request(method, path, json={"name": "n"} if method == "POST" else None)
    assert refused.status_code == 403
    assert "this request needs 'admin'" in refused.json()["error"]["message"]


def test_a_projects_keys_from_creation_to_revocation(api: RunningApi, admin: httpx.Client) -> None:
    project = admin.post(PROJECTS, json={"name": " 客服 desk "}).json()
    assert (project["object"], project["name"]) == ("organization.project", "客服 desk")
    assert admin.get(f"{PROJECTS}/{project['id']}").json() == project
    seen, page = [], admin.get(PROJECTS).json()
    while page["has_more"]:
        seen += page["data"]
        page = admin.get(PROJECTS, params={"after": page["last_id"]}).json()
    assert [*seen, *page["data"]][-1] == project
    keys = f"{PROJECTS}/{project['id']}/api_keys"
    made = admin.post(keys, json={"name": "ci", "scopes": ["write", "read"], "expires_in": 3600}).json()
    value = made.pop("value")
    assert made["scopes"] == ["read", "write"]
    assert made["expires_at"] - made["created_at"] in (3600, 3601)
    assert made["last_used_at"] is None
    assert value.startswith(made["redacted_value"].removesuffix("…"))
    with httpx.Client(base_url=api.url, headers={"Authorization": f"Bearer {value}"}) as theirs:
        assert upload(theirs).status_code == 200
        (listed,) = admin.get(keys).json()["data"]
        assert listed["last_used_at"] >= made["created_at"]
        assert value not in admin.get(keys).text
        assert admin.delete(f"{keys}/{made['id']}").json()["deleted"] is True
        gone = theirs.get("/files")
    assert (gone.status_code, gone.json()["error"]["code"]) == (401, "invalid_api_key")
    assert admin.delete(f"{keys}/{made['id']}").status_code == 404
    assert admin.get(keys).json()["data"][0]["revoked_at"] is not None


def test_a_use_is_written_once_a_minute(api: RunningApi, client: httpx.Client) -> None:
    def last_used() -> float | None:
        with api.context.db.read() as session:
            key = session.query(ApiKey).order_by(ApiKey.seq.desc()).first()
        assert key is not None
        return key.last_used_at

    client.get("/files")
    first = last_used()
    client.get("/files")
    assert last_used() == first is not None
    with api.context.db.write() as session:
        session.execute(update(ApiKey).values(last_used_at=ApiKey.last_used_at - 61))
    client.get("/files")
    assert last_used() != first - 61


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "name"),
        ({"name": ""}, "name"),
        ({"name": " "}, "name"),
        ({"name": "x" * 65}, "name"),
        ({"name": "a\nb"}, "name"),
        ({"name": "n", "scopes": []}, "scopes"),
        ({"name": "n", "scopes": ["root"]}, "scopes.0"),
        ({"name": "n", "expires_in": 1}, "expires_in"),
        ({"name": "n", "expires_in": 10**12}, "expires_in"),
        ({"name": "n", "x": 1}, "x"),
    ],
)
def test_a_bad_key(admin: httpx.Client, body: dict[str, object], param: str) -> None:
    project = admin.get(PROJECTS).json()["data"][0]["id"]
    refused = admin.post(f"{PROJECTS}/{project}/api_keys", json=body)
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, param)


def test_unknown_and_taken_names(admin: httpx.Client) -> None:
    assert admin.get(f"{PROJECTS}/proj_x").status_code == 404
    assert admin.post(f"{PROJECTS}/proj_x/api_keys", json={"name": "n"}).status_code == 404
    taken = admin.post(PROJECTS, json={"name": "operators"})
    assert (taken.status_code, taken.json()["error"]["param"]) == (409, "name")
    own, other = (admin.get(PROJECTS, params={"limit": 2}).json()["data"])[:2]
    key = admin.get(f"{PROJECTS}/{own['id']}/api_keys").json()["data"][0]["id"]
    assert admin.delete(f"{PROJECTS}/{other['id']}/api_keys/{key}").status_code == 404
