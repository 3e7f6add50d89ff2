"""Another project's id is answered by 404, everywhere: by every operation of the OpenAPI document that takes one."""

from __future__ import annotations

import re
from collections.abc import Generator
from typing import Any

import httpx
import pytest
from sqlalchemy import func, select

from service.kit.db import Base
from service.tables.audit import AuditRow
from service.tables.webhooks import WebhookEndpointRow
from tests.fixtures.databases import client_with, key_of, project_of
from tests.fixtures.openapi import api_document
from tests.fixtures.service import RunningApi, upload
from tests.service.api.test_chains import finish

DOCUMENT = api_document()
ADMINISTRATION = "/v1/organization/"


def _operations(*, administrative: bool) -> list[Any]:
    return [
        pytest.param(method, path, operation, id=f"{method.upper()} {path}")
        for path, operations in DOCUMENT["paths"].items()
        if "{" in path and path.startswith(ADMINISTRATION) == administrative
        for method, operation in operations.items()
    ]


GIVEN: dict[tuple[str, str], dict[str, Any]] = {
    ("post", "/v1/webhook_endpoints/{webhook_endpoint_id}/replay"): {"event_ids": ["evt_x"]},
}
"""Bodies that a schema does not tell."""

Ids = dict[str, str]


@pytest.fixture(scope="module")
def owner(api: RunningApi) -> Generator[httpx.Client]:
    with client_with(api, "owner of all") as client:
        yield client


@pytest.fixture(scope="module")
def ids(api: RunningApi, owner: httpx.Client) -> Ids:
    """One id of the owner's for each name that stands in a path."""
    file_id = upload(owner).json()["id"]
    body = {"filename": "a.jsonl", "purpose": "fine-tune", "bytes": 9, "mime_type": "text/jsonl"}
    job_id = owner.post("/fine_tuning/jobs", json={"model": "tiny", "training_file": file_id}).json()["id"]
    model = finish(api, job_id, checkpoint=2)
    shared = owner.post(
        f"/fine_tuning/checkpoints/{model}/permissions", json={"project_ids": [_third_project(api)]}
    ).json()
    with api.context.db.write() as session:
        session.add(
            WebhookEndpointRow(
                id="whe_owner",
                project_id=project_of(owner),
                name="n",
                url="https://hooks.example/x",
                event_types=[],
                secret="s",
                secret_hint="h",
            )
        )
    return {
        "file_id": file_id,
        "upload_id": owner.post("/uploads", json=body).json()["id"],
        "job_id": job_id,
        "model": model,
        "fine_tuned_model_checkpoint": model,
        "export_id": owner.post(f"/models/{model}/exports", json={"format": "adapter"}).json()["id"],
        "permission_id": shared["data"][0]["id"],
        "webhook_endpoint_id": "whe_owner",
        "project_id": project_of(owner),
        "key_id": key_of(owner),
    }


def _third_project(api: RunningApi) -> str:
    with client_with(api, "somebody") as client:
        return project_of(client)


def url_of(path: str, ids: Ids) -> str:
    names = re.findall(r"{(\w+)}", path)
    assert set(names) <= set(ids), f"give this test's fixture `ids` an object for {path}"
    return path.removeprefix("/v1").format(**ids)


def resolved(schema: dict[str, Any]) -> dict[str, Any]:
    while "$ref" in schema:
        schema = DOCUMENT["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    return schema


def sample(schema: dict[str, Any]) -> Any:
    """Return a value that a schema allows."""
    schema = resolved(schema)
    for known in ("const", "default"):
        if known in schema:
            return schema[known]
    for known in ("examples", "enum"):
        if known in schema:
            return schema[known][0]
    if "anyOf" in schema:
        return sample(schema["anyOf"][0])
    return _of_type(schema)


def _of_type(schema: dict[str, Any]) -> Any:
    match schema.get("type"):
        case "object":
            return {name: sample(schema["properties"][name]) for name in schema.get("required", ())}
        case "array":
            return [sample(schema["items"])] * schema.get("minItems", 0)
        case "integer" | "number":
            return schema.get("minimum", 1)
        case _:
            return "x" * schema.get("minLength", 1)


def ask(client: httpx.Client, method: str, path: str, operation: dict[str, Any], ids: Ids) -> httpx.Response:
    content = operation.get("requestBody", {}).get("content", {})
    sent: dict[str, Any] = {}
    if "multipart/form-data" in content:
        sent["files"] = dict.fromkeys(resolved(content["multipart/form-data"]["schema"])["required"], b"{}\n")
    elif content:
        sent["json"] = GIVEN.get((method, path)) or sample(content["application/json"]["schema"])
    return client.request(method, url_of(path, ids), **sent)


def rows(api: RunningApi) -> dict[str, int]:
    """Count all rows but those of the audit log, where refused calls stand."""
    with api.context.db.read() as session:
        tables = [table for table in Base.metadata.sorted_tables if table.name != AuditRow.__tablename__]
        return {table.name: session.scalar(select(func.count()).select_from(table)) or 0 for table in tables}


@pytest.mark.slow
@pytest.mark.parametrize(("method", "path", "operation"), _operations(administrative=False))
def test_another_projects_id_is_answered_by_404(
    api: RunningApi, stranger: httpx.Client, ids: Ids, method: str, path: str, operation: dict[str, Any]
) -> None:
    stranger.get("/files")
    before = rows(api)
    foreign = ask(stranger, method, path, operation, ids)
    assert foreign.status_code == 404, foreign.text
    assert foreign.json()["error"]["code"] in ("not_found", "model_not_found")
    absent = {name: value[:-3] + "zzz" for name, value in ids.items()}
    nobodys = ask(stranger, method, path, operation, absent)
    assert nobodys.status_code == 404, "what exists elsewhere is answered as what does not"
    assert _without(nobodys.text, absent) == _without(foreign.text, ids)
    assert rows(api) == before, "nothing is made, changed or deleted"


def _without(text: str, ids: Ids) -> str:
    for value in ids.values():
        text = text.replace(value[:64], "…").replace(value, "…")
    return text


@pytest.mark.slow
@pytest.mark.parametrize(("method", "path", "operation"), _operations(administrative=True))
def test_projects_are_for_administrators(
    api: RunningApi, stranger: httpx.Client, owner: httpx.Client, ids: Ids, method: str, path: str, operation: Any
) -> None:
    stranger.get("/files")
    before = rows(api)
    assert ask(stranger, method, path, operation, ids).status_code == 403
    assert ask(owner, method, path, operation, ids | {"project_id": "proj_absent"}).status_code == 404
    if "{key_id}" in path:
        other = ids | {"project_id": _third_project(api)}
        before = rows(api)
        assert ask(owner, method, path, operation, other).status_code == 404, "the key is another project's"
    assert rows(api) == before


def test_the_owner_is_answered(owner: httpx.Client, ids: Ids) -> None:
    """The ids are good ones: their owner gets each of them."""
    for path in ("/files/{file_id}", "/uploads/{upload_id}", "/fine_tuning/jobs/{job_id}", "/models/{model}"):
        assert owner.get(path.format(**ids)).status_code == 200
    assert owner.get(f"/webhook_endpoints/{ids['webhook_endpoint_id']}").status_code == 200
    permissions = owner.get(f"/fine_tuning/checkpoints/{ids['model']}/permissions").json()["data"]
    assert [found["id"] for found in permissions] == [ids["permission_id"]]


def test_ids_in_bodies_and_queries_are_foreign_too(stranger: httpx.Client, ids: Ids) -> None:
    own = upload(stranger).json()["id"]
    for body in (
        {"model": "tiny", "training_file": ids["file_id"]},
        {"model": "tiny", "training_file": own, "validation_file": ids["file_id"]},
        {"model": ids["model"], "training_file": own},
        {"model": f"{ids['model']}:ckpt-step-2", "training_file": own},
        {"model": ids["job_id"], "training_file": own},
    ):
        assert stranger.post("/fine_tuning/jobs", json=body).status_code == 404, body
    for path, after in (
        ("/files", ids["file_id"]),
        ("/fine_tuning/jobs", ids["job_id"]),
        ("/webhook_endpoints", ids["webhook_endpoint_id"]),
    ):
        assert stranger.get(path, params={"after": after}).status_code == 400
    assert stranger.get("/fine_tuning/jobs").json()["data"] == []
    assert ids["model"] not in stranger.get("/models").text
