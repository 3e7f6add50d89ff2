"""A deleted project leaves no row, no object and no queue entry; the audit log alone tells of it."""

from __future__ import annotations

import secrets
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from sqlalchemy import Table, func, insert, select, update
from sqlalchemy.orm import Session

from service.controller.erasure import erase_projects
from service.controller.garbage import delete_blobs
from service.erasure.repository import KEPT_TABLES, owned_tables
from service.jobs import lifecycle, repository
from service.kit.db import Base
from service.kit.outbox import OutboxRow
from service.queue.embedded import EmbeddedValkey
from service.queue.rq import RqJobQueue, connect_redis
from service.tables.webhooks import WebhookAttemptRow, WebhookEndpointRow, WebhookEventRow
from service.webhooks.fan_out import hand_out
from tests.fixtures.databases import BOTH, api_on, client_with, project_of
from tests.fixtures.service import GOOD_JSONL, RunningApi, upload
from tests.fixtures.valkey import run_valkey
from tests.service.api.test_chains import finish

JOBS = "/fine_tuning/jobs"
PROJECTS = "/organization/projects"
COVERED_OTHERWISE = {"projects", "outbox", "webhook_attempts"}
"""Tables without a project's id that `erase_project` empties by what their rows are about."""
NOBODYS = {"workers", "base_models"}
"""Tables whose rows belong to no project."""


@pytest.fixture(scope="module", params=BOTH)
def api(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Generator[RunningApi]:
    with api_on(request.param, tmp_path_factory.mktemp("erasure")) as running:
        yield running


@pytest.fixture(scope="module")
def valkey() -> Iterator[EmbeddedValkey]:
    with run_valkey() as server:
        yield server


@pytest.fixture
def queue(valkey: EmbeddedValkey) -> Iterator[RqJobQueue]:
    queue = RqJobQueue(valkey.url)
    yield queue
    queue.close()


@pytest.fixture
def admin(api: RunningApi) -> Generator[httpx.Client]:
    with client_with(api, "operators") as client:
        yield client


@pytest.fixture
def victim(api: RunningApi, request: pytest.FixtureRequest) -> Generator[httpx.Client]:
    with client_with(api, request.node.name[:64], "read", "write") as client:
        yield client


def rows(api: RunningApi) -> dict[str, int]:
    with api.context.db.read() as session:
        tables = Base.metadata.sorted_tables
        return {table.name: session.scalar(select(func.count()).select_from(table)) or 0 for table in tables}


def blobs(api: RunningApi) -> set[str]:
    return {blob.key for blob in api.context.storage.list("")}


def make_due(api: RunningApi) -> None:
    with api.context.db.write() as session:
        session.execute(update(OutboxRow).values(due_at=OutboxRow.due_at - 3600))


def run_controller(api: RunningApi, queue: RqJobQueue) -> None:
    """Let the controller's steps do what they have to."""
    make_due(api)
    erase_projects(api.context, queue)
    make_due(api)
    while delete_blobs(api.context, queue):
        pass


def job(client: httpx.Client, file_id: str) -> str:
    return client.post(JOBS, json={"model": "tiny", "training_file": file_id}).json()["id"]


def fill(api: RunningApi, client: httpx.Client, queue: RqJobQueue, other: str) -> None:
    """Give a project something in every table, in the blob store and in the queue."""
    key = {"Idempotency-Key": "once"}
    file_id = client.post(
        "/files", files={"file": ("训练.jsonl", GOOD_JSONL)}, data={"purpose": "fine-tune"}, headers=key
    ).json()["id"]
    announced = {"filename": "a.jsonl", "purpose": "fine-tune", "bytes": 9, "mime_type": "text/jsonl"}
    upload_id = client.post("/uploads", json=announced).json()["id"]
    assert client.post(f"/uploads/{upload_id}/parts", files={"data": b"{}\n"}).status_code == 200
    ended, running, waiting = job(client, file_id), job(client, file_id), job(client, file_id)
    name = finish(api, ended, checkpoint=2)
    for path in ("output/adapter/a", "checkpoints/step-2/b"):
        api.context.storage.put(f"jobs/{ended}/attempt-1/{path}", [b"x"])
    api.context.storage.put(f"jobs/{running}/attempt-1/checkpoints/step-1/a", [b"x"])
    assert client.post(f"/fine_tuning/checkpoints/{name}/permissions", json={"project_ids": [other]}).is_success
    with api.context.db.write() as session:
        for job_id in (running, waiting):
            lifecycle.queue_up(session, job_id)
        assert lifecycle.start_job(session, running, owner="w", lease_seconds=60)
        project = project_of(client)
        session.add(
            WebhookEndpointRow(
                id=f"whe_{project[-20:]}",
                project_id=project,
                name="钩子",
                url="https://hooks.example/x",
                event_types=["fine_tuning.job.succeeded"],
                secret="s",
                secret_hint="whsec_…",
            )
        )
        session.flush()
        hand_out(session, has_server_target=True)
        event = session.scalars(select(WebhookEventRow).where(WebhookEventRow.project_id == project)).one()
        session.add(
            WebhookAttemptRow(event_id=event.id, event_type=event.type, url="https://x", duration_ms=1, status_code=500)
        )
    queue.push(waiting)


def some_row(session: Session, name: str, project: str) -> dict[str, Any]:
    """Return values for a row of a project's in a table of which nothing else is known."""
    values: dict[str, Any] = {}
    for column in Base.metadata.tables[name].c:
        for key in column.foreign_keys:
            parent = key.column.table
            of_project = parent.c.id == project if parent.name == "projects" else parent.c.project_id == project
            values[column.name] = session.scalar(select(key.column).where(of_project).limit(1))
        if not (column.primary_key or column.nullable or column.default or column.foreign_keys):
            values[column.name] = {str: secrets.token_hex(8), dict: {}}.get(column.type.python_type, 1)
    return values


@pytest.mark.slow
def test_nothing_is_left(
    api: RunningApi, queue: RqJobQueue, admin: httpx.Client, victim: httpx.Client, valkey: EmbeddedValkey
) -> None:
    with client_with(api, f"stays {project_of(victim)}") as neighbour:
        fill(api, neighbour, queue, project_of(victim))
        run_controller(api, queue)
        rows_before, blobs_before, queue_before = rows(api), blobs(api), queue.waiting_ids()
        client = connect_redis(valkey.url, retries=0)
        keys_before = set(client.keys())
        with client_with(api, f"goes {project_of(victim)}", "read", "write") as doomed:
            fill(api, doomed, queue, project_of(victim))
            project = project_of(doomed)
            assert admin.post(f"{PROJECTS}/{project}/limits", json={"running_jobs": 5}).is_success
            filled = rows(api)
            untouched = {name for name, count in rows_before.items() if filled[name] <= count} - NOBODYS
            with api.context.db.write() as session:
                for name in untouched:
                    session.execute(insert(Base.metadata.tables[name]).values(some_row(session, name, project)))
            assert blobs(api) > blobs_before
            assert queue.waiting_ids() > queue_before
            answer = admin.delete(f"{PROJECTS}/{project}")
            assert answer.json() == {"id": project, "object": "organization.project.deleted", "deleted": True}
            assert doomed.get("/files").status_code == 401
        run_controller(api, queue)
        left = {name: count - rows_before[name] for name, count in rows(api).items()}
        assert {name for name, more in left.items() if more} == KEPT_TABLES
        assert blobs(api) == blobs_before
        assert queue.waiting_ids() == queue_before
        assert set(client.keys()) == keys_before
        client.close()
        logs = admin.get("/organization/audit_logs", params={"project_ids[]": project, "limit": 100}).json()["data"]
        assert [entry["type"] for entry in logs[:3]] == ["project.erased", "project.deleted", "project.limits.updated"]
        assert (logs[0].get("actor"), logs[0]["project"]) == (None, {"id": project})
        assert len(neighbour.get(JOBS).json()["data"]) == 3


def test_every_table_is_covered() -> None:
    """A table is emptied by its project's id, by its parent's end, or by name."""
    owned = {table.name for table in owned_tables()}

    def follows(table: Table) -> bool:
        parents = [key for key in table.foreign_keys if key.ondelete == "CASCADE"]
        return any(key.column.table.name in owned or follows(key.column.table) for key in parents)

    for table in Base.metadata.sorted_tables:
        known = table.name in owned | KEPT_TABLES | COVERED_OTHERWISE | NOBODYS
        assert known or follows(table), f"service/erasure does not know whose the rows of {table.name} are"


@pytest.mark.slow
def test_everything_stops_at_once(api: RunningApi, admin: httpx.Client, victim: httpx.Client) -> None:
    file_id = upload(victim).json()["id"]
    job_id, project = job(victim, file_id), project_of(victim)
    with api.context.db.write() as session:
        lifecycle.queue_up(session, job_id)
        claimed = lifecycle.start_job(session, job_id, owner="w", lease_seconds=60)
        assert claimed is not None
    name = admin.get(f"{PROJECTS}/{project}").json()["name"]
    assert admin.delete(f"{PROJECTS}/{project}").status_code == 200
    assert victim.get(f"{JOBS}/{job_id}").status_code == 401
    with api.context.db.write() as session:
        assert not repository.renew_lease(session, job_id, claimed.lease_token, lease_seconds=60), "its worker stops"
    for method, path, body in (
        ("GET", f"{PROJECTS}/{project}", None),
        ("DELETE", f"{PROJECTS}/{project}", None),
        ("POST", f"{PROJECTS}/{project}", {"name": "x"}),
        ("GET", f"{PROJECTS}/{project}/api_keys", None),
        ("POST", f"{PROJECTS}/{project}/api_keys", {"name": "x"}),
        ("GET", f"{PROJECTS}/{project}/limits", None),
    ):
        assert admin.request(method, path, json=body).status_code == 404, (method, path)
    listed = admin.get(PROJECTS, params={"limit": 100}).json()["data"]
    assert project not in [found["id"] for found in listed]
    assert admin.post(PROJECTS, json={"name": name}).status_code == 200, "its name is free"


def test_a_project_waits_for_workers_that_may_still_write(
    api: RunningApi, queue: RqJobQueue, admin: httpx.Client, victim: httpx.Client
) -> None:
    file_id = upload(victim).json()["id"]
    admin.delete(f"{PROJECTS}/{project_of(victim)}")
    assert erase_projects(api.context, queue) == 0
    assert f"files/{file_id}" in blobs(api)
    run_controller(api, queue)
    assert f"files/{file_id}" not in blobs(api)


def test_an_administrator_does_not_delete_the_ground_it_stands_on(admin: httpx.Client, victim: httpx.Client) -> None:
    refused = admin.delete(f"{PROJECTS}/{project_of(admin)}")
    assert (refused.status_code, refused.json()["error"]["param"]) == (409, "project_id")
    assert admin.get("/files").status_code == 200
    assert admin.delete(f"{PROJECTS}/proj_x").status_code == 404
    assert victim.delete(f"{PROJECTS}/{project_of(victim)}").status_code == 403


@pytest.mark.slow
def test_what_is_under_way_is_refused_or_erased(
    api: RunningApi, queue: RqJobQueue, admin: httpx.Client, victim: httpx.Client
) -> None:
    """Whatever is sent while a project is deleted is either seen by its erasure or refused, and never a 500."""
    file_id = upload(victim).json()["id"]
    project = project_of(victim)

    def send(place: int) -> int:
        if place == 10:
            return admin.delete(f"{PROJECTS}/{project}").status_code
        sent = upload(victim) if place % 2 else victim.post(JOBS, json={"model": "tiny", "training_file": file_id})
        return sent.status_code

    with ThreadPoolExecutor(8) as pool:
        statuses = set(pool.map(send, range(40)))
    assert statuses <= {200, 401, 404}
    assert upload(victim).status_code == 401
    run_controller(api, queue)
    with api.context.db.read() as session:
        for table in owned_tables():
            found = session.scalar(select(func.count()).select_from(table).where(table.c.project_id == project))
            assert found == 0, table.name


@pytest.mark.slow
def test_an_interrupted_erasure_continues(
    api: RunningApi, queue: RqJobQueue, admin: httpx.Client, victim: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    file_id = upload(victim).json()["id"]
    for _ in range(3):
        job(victim, file_id)
    admin.delete(f"{PROJECTS}/{project_of(victim)}")
    make_due(api)

    def broken(*_: object) -> None:
        raise RuntimeError("the process died here")

    with monkeypatch.context() as patch:
        patch.setattr("service.erasure.repository.drop_rest", broken)
        with pytest.raises(RuntimeError):
            erase_projects(api.context, queue)
    assert erase_projects(api.context, queue) == 1
    assert erase_projects(api.context, queue) == 0


@pytest.mark.slow
def test_jobs_that_start_from_a_deleted_projects_model_say_so(
    api: RunningApi, queue: RqJobQueue, admin: httpx.Client, victim: httpx.Client
) -> None:
    name = finish(api, job(victim, upload(victim).json()["id"]))
    with client_with(api, f"borrower {project_of(victim)}") as borrower:
        victim.post(f"/fine_tuning/checkpoints/{name}/permissions", json={"project_ids": [project_of(borrower)]})
        body = {"model": name, "training_file": upload(borrower).json()["id"]}
        started = borrower.post(JOBS, json=body).json()["id"]
        admin.delete(f"{PROJECTS}/{project_of(victim)}")
        run_controller(api, queue)
        assert borrower.get(f"{JOBS}/{started}").json()["model"] == name
        assert borrower.post(JOBS, json=body).status_code == 404
        assert borrower.get(f"/models/{name}").status_code == 404
