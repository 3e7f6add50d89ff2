"""Whatever is wrong with a request, its answer is a 4xx that names the place, and nothing is made or changed by it."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import func, select

from service.keys.service import SCOPES, create_key
from service.migrations.tables import TABLES
from service.tables.audit import AuditRow
from tests.fixtures.postgres import new_database
from tests.fixtures.service import RunningApi, make_context, run_api, upload
from tests.service.api.bad_input import REQUESTS, Bad

SETTINGS: dict[str, Any] = {
    "max_file_bytes": 2_000_000,
    "webhook_allowed_networks": "127.0.0.1/32",
    "engine_url": "http://127.0.0.1:9",
}

assert len(REQUESTS) >= 150


@dataclass
class Scene:
    """The API with one object of each kind."""

    api: RunningApi
    client: httpx.Client
    ids: dict[str, str]

    def filled(self, text: str) -> str:
        for name, value in self.ids.items():
            text = text.replace(f"{{{name}}}", value)
        return text

    def state(self) -> tuple[dict[str, int], set[str]]:
        """Return how many rows each table has, and every blob."""
        with self.api.context.db.read() as session:
            rows = {
                table.__tablename__: session.scalar(select(func.count()).select_from(table)) or 0
                for table in TABLES
                if table is not AuditRow
            }
        return rows, {blob.key for blob in self.api.context.storage.list("")}


@pytest.fixture(scope="module", params=["sqlite", pytest.param("postgresql", marks=pytest.mark.integration)])
def scene(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Generator[Scene]:
    folder: Path = tmp_path_factory.mktemp(request.param)
    if request.param == "sqlite":
        with run_api(make_context(folder, **SETTINGS)) as api, make_scene(api) as scene:
            yield scene
        return
    with (
        new_database() as url,
        run_api(make_context(folder, database_url=url, secret_key="k" * 32, **SETTINGS)) as api,
        make_scene(api) as scene,
    ):
        yield scene


class make_scene:  # noqa: N801 - reads as a phrase
    def __init__(self, api: RunningApi) -> None:
        self._api = api

    def __enter__(self) -> Scene:
        api = self._api
        with api.context.db.write() as session:
            key = create_key(session, api.context.hmac_key, project="bad input", name="n", scopes=SCOPES)[1]
        self._client = client = httpx.Client(base_url=api.url, headers={"Authorization": f"Bearer {key}"}, timeout=30)
        file_id = upload(client).json()["id"]
        order = {"model": "tiny", "training_file": file_id}
        jobs = [client.post("/fine_tuning/jobs", json=order).json()["id"] for _ in range(2)]
        client.post(f"/fine_tuning/jobs/{jobs[1]}/cancel")
        announced = {"filename": "a.jsonl", "purpose": "fine-tune", "bytes": 100, "mime_type": "text/jsonl"}
        uploads = [client.post("/uploads", json=announced).json()["id"] for _ in range(2)]
        client.post(f"/uploads/{uploads[1]}/cancel")
        hook = {"name": "n", "url": "http://127.0.0.1:9/", "event_types": ["fine_tuning.job.succeeded"]}
        ids = {
            "file": file_id,
            "job": jobs[0],
            "ended": jobs[1],
            "upload": uploads[0],
            "cancelled": uploads[1],
            "hook": client.post("/webhook_endpoints", json=hook).json()["id"],
            "project": client.get("/organization/projects").json()["data"][0]["id"],
            "name": client.get("/organization/projects").json()["data"][0]["name"],
        }
        return Scene(api, client, ids)

    def __exit__(self, *_: object) -> None:
        self._client.close()


@pytest.mark.slow
@pytest.mark.parametrize("bad", REQUESTS, ids=str)
def test_a_bad_request_is_refused_with_its_place_and_changes_nothing(scene: Scene, bad: Bad) -> None:
    before = scene.state()
    body = scene.filled(bad.body) if isinstance(bad.body, str) else bad.body
    answer = scene.client.request(bad.method, scene.filled(bad.path), content=body, headers=bad.headers)
    assert answer.status_code == bad.status, answer.text
    error = answer.json()["error"]
    assert set(error) >= {"message", "type", "param", "code"}
    assert error["type"] == "invalid_request_error"
    assert error["message"].endswith((".", "?")) or "problem" in error["message"] or error["message"].count(" ") > 2
    place = scene.filled(bad.names).lower()
    assert place in error["message"].lower() or place in (error["param"] or "").lower(), error
    assert answer.headers["x-should-retry"] == "false"
    assert answer.headers["x-request-id"]
    assert scene.state() == before
