"""The audit log: what changes something is told with it, what is refused too, and nothing can be taken back."""

from __future__ import annotations

from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import openai
import pytest
from sqlalchemy import select, text
from sqlalchemy.exc import DBAPIError

from service.audit.actions import ACTIONS, CHANGES_NOTHING
from service.tables.audit import AuditRow
from service.tables.files import FileRow
from tests.fixtures.databases import BOTH, api_on, client_with, key_of, project_of
from tests.fixtures.openapi import api_document
from tests.fixtures.service import RunningApi, upload

LOGS = "/organization/audit_logs"
PROJECTS = "/organization/projects"
JOBS = "/fine_tuning/jobs"


@pytest.fixture(scope="module", params=BOTH)
def api(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Generator[RunningApi]:
    with api_on(request.param, tmp_path_factory.mktemp("audit")) as running:
        yield running


@pytest.fixture
def client(api: RunningApi, request: pytest.FixtureRequest) -> Generator[httpx.Client]:
    with client_with(api, request.node.name[:64]) as made:
        yield made


def log_of(client: httpx.Client, **params: Any) -> list[dict[str, Any]]:
    """Return what the log has of the client's key, the oldest first."""
    answer = client.get(LOGS, params={"actor_ids[]": key_of(client), "limit": 100, **params})
    assert answer.status_code == 200, answer.text
    return answer.json()["data"][::-1]


@pytest.mark.slow
def test_every_operation_that_changes_something_has_a_name() -> None:
    places = {
        (method.upper(), path)
        for path, operations in api_document()["paths"].items()
        for method in operations
        if method in ("post", "put", "patch", "delete")
    }
    assert places - set(ACTIONS) == CHANGES_NOTHING, "name it in service/audit/actions.py"
    assert set(ACTIONS) <= places
    assert len({action.type for action in ACTIONS.values()}) == len(ACTIONS)


def test_a_change_is_recorded_with_key_action_time_and_address(
    client: httpx.Client, request: pytest.FixtureRequest
) -> None:
    name: str = request.node.name
    sent = upload(client, filename="客服.jsonl")
    file_id = sent.json()["id"]
    client.get(f"/files/{file_id}")
    (entry,) = log_of(client)
    assert entry["id"].startswith("audit_log-")
    assert abs(entry["effective_at"] - sent.json()["created_at"]) <= 1
    del entry["id"], entry["effective_at"]
    assert entry == {
        "object": "organization.audit_log",
        "type": "file.created",
        "actor": {
            "type": "api_key",
            "api_key": {
                "id": key_of(client),
                "type": "service_account",
                "service_account": {"id": key_of(client)},
            },
        },
        "project": {"id": project_of(client), "name": name[:64]},
        "outcome": "succeeded",
        "status_code": None,
        "object_id": file_id,
        "request_id": sent.headers["x-request-id"],
        "ip_address": "127.0.0.1",
        "count": 1,
        "file.created": {"id": file_id},
    }


def test_the_whole_life_of_a_job_is_recorded(client: httpx.Client) -> None:
    file_id = upload(client).json()["id"]
    job = client.post(JOBS, json={"model": "tiny", "training_file": file_id}).json()["id"]
    for what in ("pause", "resume", "cancel"):
        assert client.post(f"{JOBS}/{job}/{what}").status_code == 200
    client.delete(f"{JOBS}/{job}")
    client.delete(f"/files/{file_id}")
    told = [(entry["type"], entry["object_id"]) for entry in log_of(client)]
    kind = "fine_tuning.job"
    acts = [(f"{kind}.{what}", job) for what in ("created", "paused", "resumed", "cancelled", "deleted")]
    assert told == [("file.created", file_id), *acts, ("file.deleted", file_id)]


def test_uploads_webhooks_projects_and_keys_are_recorded(client: httpx.Client) -> None:
    body = {"filename": "a.jsonl", "purpose": "fine-tune", "bytes": 3, "mime_type": "text/jsonl"}
    upload_id = client.post("/uploads", json=body).json()["id"]
    part = client.post(f"/uploads/{upload_id}/parts", files={"data": b"{}\n"}).json()["id"]
    client.post(f"/uploads/{upload_id}/cancel")
    project = client.post(PROJECTS, json={"name": f"new {project_of(client)}"}).json()["id"]
    assert client.post(f"{PROJECTS}/{project}", json={"name": f"更名 {project}"}).json()["name"] == f"更名 {project}"
    made = client.post(f"{PROJECTS}/{project}/api_keys", json={"name": "n"}).json()
    client.post(f"{PROJECTS}/{project}/limits", json={"running_jobs": 1})
    client.delete(f"{PROJECTS}/{project}/api_keys/{made['id']}")
    entries = log_of(client)
    assert [(entry["type"], entry["object_id"]) for entry in entries] == [
        ("upload.created", upload_id),
        ("upload.part.created", part),
        ("upload.cancelled", upload_id),
        ("project.created", project),
        ("project.updated", project),
        ("api_key.created", made["id"]),
        ("project.limits.updated", project),
        ("api_key.deleted", made["id"]),
    ]
    assert entries[-1]["project"] == {"id": project, "name": f"更名 {project}"}
    everything = client.get(LOGS, params={"limit": 100}).text
    assert made["value"] not in everything
    assert client.headers["authorization"].removeprefix("Bearer ") not in everything


def test_refusals_are_recorded_and_reads_are_not(api: RunningApi, client: httpx.Client) -> None:
    assert client.post(JOBS, json={"model": "tiny", "training_file": "file-没有"}).status_code == 404
    assert client.delete("/files/file-x").status_code == 404
    assert client.post(JOBS, content=b"{").status_code == 400
    assert client.get("/files/file-x").status_code == 404
    with client_with(api, "readers", "read") as reader:
        assert reader.delete("/files/file-y").status_code == 403
    told = [(e["type"], e["object_id"], e["outcome"], e["status_code"]) for e in log_of(client)]
    assert told == [
        ("fine_tuning.job.created", None, "failed", 404),
        ("file.deleted", "file-x", "failed", 404),
        ("fine_tuning.job.created", None, "failed", 400),
    ]
    (refused,) = log_of(client, **{"actor_ids[]": key_of(reader)})
    assert (refused["type"], refused["object_id"], refused["status_code"]) == ("file.deleted", "file-y", 403)


def test_many_refusals_of_a_kind_are_one_entry_with_their_count(api: RunningApi) -> None:
    with client_with(api, "read-only 只读", "read") as reader, client_with(api, "auditors") as auditor:
        for number in range(30):
            assert reader.delete(f"/files/file-{number}").status_code == 403
        last = reader.delete("/files/file-last").headers["x-request-id"]
        reader.post("/fine_tuning/jobs", json={})
        mine = {"actor_ids[]": key_of(reader)}
        assert [(e["type"], e["count"]) for e in log_of(auditor, **mine)] == [
            ("file.deleted", 1),
            ("fine_tuning.job.created", 1),
        ]
        api.app.state.refusals.write_due(everything=True)
        entries = log_of(auditor, **mine)
    assert [(e["type"], e["status_code"], e["count"]) for e in entries] == [
        ("file.deleted", 403, 1),
        ("fine_tuning.job.created", 403, 1),
        ("file.deleted", 403, 30),
    ]
    assert (entries[2]["object_id"], entries[2]["request_id"]) == ("file-last", last)
    assert entries[2]["ip_address"] == "127.0.0.1"


def test_a_refused_call_is_filed_under_the_callers_own_project(api: RunningApi, client: httpx.Client) -> None:
    with client_with(api, "intruders 闯入者", "read", "write") as intruder:
        theirs = project_of(client)
        assert intruder.post(f"{PROJECTS}/{theirs}", json={"name": "x"}).status_code == 403
        assert intruder.post(f"{PROJECTS}/{theirs}/api_keys", json={"name": "x"}).status_code == 403
        mine = {"actor_ids[]": key_of(intruder)}
        entries = log_of(client, **mine)
        assert [(e["type"], e["object_id"]) for e in entries] == [
            ("project.updated", theirs),
            ("api_key.created", theirs),
        ]
        assert {e["project"]["id"] for e in entries} == {project_of(intruder)}
        assert log_of(client, **mine, **{"project_ids[]": theirs}) == []


def test_a_repeated_creation_is_recorded_as_a_repeat(client: httpx.Client) -> None:
    for _ in range(2):
        client.post(
            "/files",
            files={"file": ("a.jsonl", b'{"text":"x"}\n')},
            data={"purpose": "fine-tune"},
            headers={"Idempotency-Key": "k"},
        )
    first, again = log_of(client)
    assert (first["outcome"], again["outcome"]) == ("succeeded", "replayed")
    assert first["object_id"] == again["object_id"]


def test_no_change_without_its_entry(api: RunningApi, client: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the log cannot be written the change is not made: both are one transaction."""

    def broken(*_: object, **__: object) -> None:
        raise DBAPIError("INSERT", {}, Exception("no room in the log"))

    blobs = set(api.context.storage.list("files"))
    with monkeypatch.context() as patch:
        patch.setattr("service.audit.repository.add_audit_row", broken)
        assert upload(client).status_code == 500
    with api.context.db.read() as session:
        assert session.scalars(select(FileRow).where(FileRow.project_id == project_of(client))).all() == []
    assert set(api.context.storage.list("files")) == blobs


@pytest.mark.parametrize("statement", ["UPDATE audit_log SET type = 'x'", "DELETE FROM audit_log"])
def test_the_database_refuses_to_change_the_log(api: RunningApi, client: httpx.Client, statement: str) -> None:
    upload(client)
    with pytest.raises(DBAPIError, match="append-only"), api.context.db.write() as session:
        session.execute(text(statement))
    if api.context.db.engine.dialect.name == "postgresql":
        with pytest.raises(DBAPIError, match="append-only"), api.context.db.write() as session:
            session.execute(text("TRUNCATE audit_log"))
    assert len(log_of(client)) == 1


def test_filters_and_pages(api: RunningApi, client: httpx.Client) -> None:
    file_ids = [upload(client).json()["id"] for _ in range(3)]
    client.delete(f"/files/{file_ids[0]}")
    mine = {"actor_ids[]": key_of(client)}
    types = {"event_types[]": ["file.deleted", "fine_tuning.job.created"]}
    assert [entry["object_id"] for entry in log_of(client, **types)] == [file_ids[0]]
    assert [e["type"] for e in log_of(client, **{"resource_ids[]": file_ids[0]})] == ["file.created", "file.deleted"]
    assert len(log_of(client, **{"project_ids[]": [project_of(client), "proj_x"]})) == 4
    assert log_of(client, **{"project_ids[]": "proj_x"}) == []
    at = log_of(client)[0]["effective_at"]
    assert len(log_of(client, **{"effective_at[gte]": at})) == 4
    assert log_of(client, **{"effective_at[lt]": at}) == []
    assert log_of(client, **{"effective_at[gt]": at + 100}) == []
    assert len(log_of(client, **{"effective_at[lte]": at + 100, "effective_at[gt]": at - 1})) == 4
    first = client.get(LOGS, params={**mine, "limit": 3}).json()
    second = client.get(LOGS, params={**mine, "limit": 3, "after": first["last_id"]}).json()
    assert (first["has_more"], second["has_more"]) == (True, False)
    assert [entry["object_id"] for entry in first["data"] + second["data"]] == [file_ids[0], *reversed(file_ids)]
    before = client.get(LOGS, params={**mine, "limit": 2, "before": second["first_id"]}).json()
    assert before["data"] == first["data"][1:]
    for params, param in (
        ({"after": "x"}, "after"),
        ({"before": "x"}, "before"),
        ({"before": first["first_id"], "after": first["first_id"]}, "before"),
        ({"limit": 0}, "limit"),
        ({"effective_at[gt]": "昨天"}, "effective_at[gt]"),
    ):
        refused = client.get(LOGS, params=params)
        assert (refused.status_code, refused.json()["error"]["param"]) == (400, param)


def test_only_administrators_read_it(api: RunningApi) -> None:
    with client_with(api, "plain", "read", "write") as plain:
        assert plain.get(LOGS).status_code == 403


def test_the_official_client_reads_it_strictly(api: RunningApi, client: httpx.Client) -> None:
    project = client.post(PROJECTS, json={"name": f"strict {project_of(client)}"}).json()["id"]
    key = client.post(f"{PROJECTS}/{project}/api_keys", json={"name": "n"}).json()["id"]
    token = client.headers["authorization"].removeprefix("Bearer ")
    with openai.OpenAI(
        base_url=api.url, api_key=token, admin_api_key=token, _strict_response_validation=True
    ) as official:
        logs = official.admin.organization.audit_logs.list(
            project_ids=[project], event_types=["api_key.created"], effective_at={"gte": 1}, limit=5
        )
        (entry,) = list(logs)
        assert entry.api_key_created is not None
        assert entry.actor is not None
        assert entry.actor.api_key is not None
        assert (entry.api_key_created.id, entry.actor.api_key.id) == (key, key_of(client))
        assert entry.actor.api_key.service_account is not None
        assert entry.actor.api_key.service_account.id == key_of(client)
        assert "session" not in entry.actor.model_fields_set
        (listed,) = official.admin.organization.projects.api_keys.list(project)
        assert listed.owner.service_account is not None
        assert (listed.id, listed.owner.service_account.role, listed.owner_project_access) == (key, "member", "active")
        client.delete(f"{PROJECTS}/{project}/api_keys/{key}")
        assert [one.owner_project_access for one in official.admin.organization.projects.api_keys.list(project)] == [
            "inactive"
        ]
        assert official.admin.organization.projects.retrieve(project).name == f"strict {project_of(client)}"
        assert official.admin.organization.projects.update(project, name=f"s {project}").name == f"s {project}"


def test_a_log_that_is_away_refuses_no_answer(
    api: RunningApi, client: httpx.Client, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A refusal is answered even where it cannot be told."""
    from service.kit.errors import Unavailable

    def away(*_: object, **__: object) -> None:
        raise Unavailable("The database is away.")

    monkeypatch.setattr("service.audit.repository.add_audit_row", away)
    assert client.delete("/files/file-x").status_code == 404
    assert "could not be written to the audit log" in caplog.text
    with api.context.db.read() as session:
        assert session.scalars(select(AuditRow).where(AuditRow.key_id == key_of(client))).all() == []


def test_of_projects_of_one_name_at_the_same_time_one_is_made(client: httpx.Client) -> None:
    name = f"同名 {project_of(client)[-8:]}"
    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(lambda _: client.post(PROJECTS, json={"name": name}), range(6)))
    assert sorted(answer.status_code for answer in answers) == [200] + [409] * 5
    made = next(answer.json()["id"] for answer in answers if answer.is_success)
    others = [client.post(PROJECTS, json={"name": f"{name} {n}"}).json()["id"] for n in range(4)]
    with ThreadPoolExecutor(4) as pool:
        renamed = list(pool.map(lambda one: client.post(f"{PROJECTS}/{one}", json={"name": f"{name}!"}), others))
    assert sorted(answer.status_code for answer in renamed) == [200] + [409] * 3
    told = [entry for entry in log_of(client) if entry["outcome"] == "succeeded" and entry["object_id"] == made]
    assert [entry["type"] for entry in told] == ["project.created"]
