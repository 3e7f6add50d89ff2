"""Scopes of keys, and the administration of projects and keys."""

from __future__ import annotations

import json
from collections.abc import Callable, Generator

import anyio
import httpx
import pytest
from sqlalchemy import update

from burnish import AsyncBurnish
from burnish.cli import Exit
from burnish.cli import main as cli
from service.keys.service import SCOPES, Scope, create_key
from service.tables.keys import ApiKeyRow
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
            key = session.query(ApiKeyRow).order_by(ApiKeyRow.seq.desc()).first()
        assert key is not None
        return key.last_used_at

    client.get("/files")
    first = last_used()
    client.get("/files")
    assert last_used() == first is not None
    with api.context.db.write() as session:
        session.execute(update(ApiKeyRow).values(last_used_at=ApiKeyRow.last_used_at - 61))
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


@pytest.fixture
def terminal(
    api: RunningApi, admin: httpx.Client, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """The `burnish` command, with an administrator's key."""
    monkeypatch.setenv("BURNISH_BASE_URL", api.url)
    monkeypatch.setenv("BURNISH_API_KEY", admin.headers["authorization"].removeprefix("Bearer "))
    monkeypatch.setenv("COLUMNS", "200")

    def run(*arguments: str) -> tuple[int, str, str]:
        status = cli(arguments)
        return status, *capfd.readouterr()

    return run


def test_the_command_line_manages_projects_and_keys(
    api: RunningApi, terminal: Callable[..., tuple[int, str, str]]
) -> None:
    project = terminal("projects", "create", "销售 sales")[1].strip()
    assert "销售 sales" in terminal("projects", "list", "--limit", "1000")[1]
    status, value, told = terminal("keys", "create", project, "--name", "bi", "--scope", "read", "--expires-in", "1.5")
    assert (status, "shown only now" in told) == (0, True)
    with httpx.Client(base_url=api.url, headers={"Authorization": f"Bearer {value.strip()}"}) as theirs:
        assert theirs.get("/files").status_code == 200
        listed = terminal("keys", "list", project)[1]
        assert value.strip() not in listed
        (key,) = json.loads(terminal("keys", "list", project, "--json")[1])
        assert key["id"] in listed
        assert key["expires_at"] - key["created_at"] in (129_600, 129_601)
        assert terminal("keys", "revoke", project, key["id"])[1] == f"{key['id']}: revoked\n"
        assert theirs.get("/files").status_code == 401
    assert "revoked" in terminal("keys", "list", project)[1]
    status, _, sentence = terminal("keys", "revoke", project, key["id"])
    assert (status, sentence.startswith("Error: No such API key in this project")) == (Exit.REFUSED, True)
    assert terminal("projects", "create", "销售 sales")[0] == Exit.REFUSED


def test_the_awaited_client_does_too(api: RunningApi, admin: httpx.Client) -> None:
    key = admin.headers["authorization"].removeprefix("Bearer ")

    async def work() -> None:
        async with AsyncBurnish(base_url=api.url, api_key=key) as client:
            project = await client.projects.create(name="awaited")
            assert (await client.projects.list(limit=1)).data
            made = await client.projects.create_key(project.id, name="n")
            assert made.value is not None
            assert made.value not in repr(made)
            assert [listed.id for listed in (await client.projects.list_keys(project.id)).data] == [made.id]
            assert (await client.projects.revoke_key(project.id, made.id)).deleted

    anyio.run(work)
