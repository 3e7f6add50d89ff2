"""`Idempotency-Key` on every POST that creates, on both databases; and what is kept of an answer says nothing."""

from __future__ import annotations

from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from sqlalchemy import func, select, text

from service.kit.errors import InvalidRequest
from service.migrations.tables import TABLES
from service.tables.audit import AuditRow
from service.tables.keys import IdempotentAnswerRow
from tests.fixtures.databases import BOTH, api_on
from tests.fixtures.objects import Objects, make_objects
from tests.fixtures.openapi import api_document
from tests.fixtures.service import GOOD_JSONL, RunningApi

CREATES = {
    "add_part",
    "complete_upload",
    "create_export",
    "create_job",
    "create_key",
    "create_permissions",
    "create_project",
    "create_upload",
    "create_webhook_endpoint",
    "replay_webhook_events",
    "rotate_webhook_secret",
    "upload_file",
}
CREATES_NOTHING = {
    "cancel_job",
    "cancel_upload",
    "create_chat_completion",
    "pause_job",
    "preview_job",
    "resume_job",
    "run_grader",
    "test_webhook_endpoint",
    "update_limits",
    "update_project",
    "update_webhook_endpoint",
    "validate_grader",
}


@pytest.mark.slow
def test_every_post_is_known_to_create_or_not() -> None:
    posts = {
        methods["post"]["operationId"]: methods["post"]
        for methods in api_document()["paths"].values()
        if "post" in methods
    }
    takes = {
        name
        for name, operation in posts.items()
        if any(parameter["name"] == "idempotency-key" for parameter in operation.get("parameters", ()))
    }
    assert takes == CREATES
    assert set(posts) - takes == CREATES_NOTHING
    for name in takes:
        assert "idempotency_key_reused" in posts[name]["responses"]["409"]["content"]["application/json"]["examples"], (
            name
        )
        assert "Idempotent-Replayed" in posts[name]["responses"]["200"]["headers"]


@dataclass
class World:
    """An API with one of everything, and a client that may do all of it."""

    api: RunningApi
    objects: Objects
    client: httpx.Client

    def counts(self) -> dict[str, int]:
        """Count the rows and blobs; the log is told of every call."""
        with self.api.context.db.read() as session:
            rows = {
                table.__tablename__: session.scalar(select(func.count()).select_from(table)) or 0
                for table in TABLES
                if table is not AuditRow
            }
        return rows | {"blobs": sum(1 for _ in self.api.context.storage.list(""))}

    def request(self, name: str, other: bool = False) -> dict[str, Any]:
        """Return what a creation sends; with `other`, something else to the same path."""
        return CREATIONS[name](self.objects.ids, other)


CREATIONS: dict[str, Any] = {
    "upload_file": lambda _, other: {
        "url": "/files",
        "files": {"file": ("乙.jsonl" if other else "甲.jsonl", GOOD_JSONL)},
        "data": {"purpose": "fine-tune"},
    },
    "create_upload": lambda _, other: {
        "url": "/uploads",
        "json": {"filename": "a.jsonl", "purpose": "fine-tune", "bytes": 8 + other, "mime_type": "text/jsonl"},
    },
    "add_part": lambda ids, other: {
        "url": f"/uploads/{ids['upload_id']}/parts",
        "files": {"data": ("p", b"{}" if other else b"[]")},
    },
    "create_job": lambda ids, other: {
        "url": "/fine_tuning/jobs",
        "json": {"model": "tiny", "training_file": ids["file_id"], "seed": 5 + other},
    },
    "create_export": lambda ids, other: {
        "url": f"/models/{ids['model']}/exports",
        "json": {"format": "merged", "precision": "f32" if other else "f16"},
    },
    "create_permissions": lambda ids, other: {
        "url": f"/fine_tuning/checkpoints/{ids['model']}/permissions",
        "json": {"project_ids": [ids["other_project"]] * (1 + other)},
    },
    "create_project": lambda _, other: {"url": "/organization/projects", "json": {"name": "二" if other else "一"}},
    "create_key": lambda ids, other: {
        "url": f"/organization/projects/{ids['other_project']}/api_keys",
        "json": {"name": "持续集成", "scopes": ["read"] if other else ["read", "write"]},
    },
    "create_webhook_endpoint": lambda _, other: {
        "url": "/webhook_endpoints",
        "json": {
            "name": "乙" if other else "甲",
            "url": "http://127.0.0.1:9/hook",
            "event_types": ["fine_tuning.job.succeeded"],
        },
    },
    "rotate_webhook_secret": lambda ids, other: {
        "url": f"/webhook_endpoints/{ids['webhook_endpoint_id']}/rotate_secret",
        "json": {"keep_old_secret_active_for_24_hours": other},
    },
    "replay_webhook_events": lambda ids, other: {
        "url": f"/webhook_endpoints/{ids['webhook_endpoint_id']}/replay",
        "json": {"event_ids": [ids["event"]] * (1 + other)},
    },
}


@pytest.fixture(scope="module", params=BOTH)
def world(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Generator[World]:
    folder = tmp_path_factory.mktemp(request.param)
    with api_on(request.param, folder, webhook_allowed_networks="127.0.0.0/8") as api:
        objects = make_objects(api, project="twice")
        headers = {"Authorization": f"Bearer {objects.key}"}
        with httpx.Client(base_url=api.url, headers=headers, timeout=60) as client:
            yield World(api, objects, client)


def test_the_list_of_creations_is_whole() -> None:
    assert set(CREATIONS) == CREATES - {"complete_upload"}, "which has a test of its own"


@pytest.mark.slow
@pytest.mark.parametrize("name", CREATIONS)
def test_a_creation_that_is_sent_again_is_made_once(world: World, name: str) -> None:
    key = {"Idempotency-Key": f"{name}-1"}
    before = world.counts()
    with ThreadPoolExecutor(6) as threads:
        answers = list(threads.map(lambda _: world.client.post(**world.request(name), headers=key), range(6)))
    assert {answer.status_code for answer in answers} == {200}, answers[0].text
    assert len({answer.text for answer in answers}) == 1
    assert [answer.headers.get("idempotent-replayed") for answer in answers].count("true") == 5
    once = world.counts()
    assert once != before
    other = world.client.post(**world.request(name, True), headers=key)
    assert (other.status_code, other.headers["x-should-retry"]) == (409, "false")
    assert other.json()["error"]["code"] == "idempotency_key_reused"
    assert world.counts() == once, "a refused one leaves nothing"
    fresh = world.client.post(**world.request(name, True), headers={"Idempotency-Key": f"{name}-2"})
    assert fresh.status_code == 200, fresh.text
    assert world.counts() != once


def test_what_is_kept_of_an_answer_opens_with_the_header_alone(world: World) -> None:
    header = "f0c2-secret-of-the-caller"
    shown: list[str] = [header]
    for name, member in (
        ("create_key", "value"),
        ("create_webhook_endpoint", "signing_secret"),
        ("rotate_webhook_secret", "signing_secret"),
    ):
        answer = world.client.post(**world.request(name), headers={"Idempotency-Key": f"{header}-{name}"})
        shown.append(answer.json()[member])
    with world.api.context.db.read() as session:
        for table in TABLES:
            dump = str(session.execute(text(f"SELECT * FROM {table.__tablename__}")).all())
            assert not [secret for secret in shown if secret in dump], table.__tablename__
        kept = session.scalars(select(IdempotentAnswerRow.answer)).all()
    assert kept
    assert not [answer for answer in kept if answer is None or "object" in answer]


def test_a_repeated_creation_gets_its_answer_after_its_host_is_gone(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = {"Idempotency-Key": "the host goes"}
    first = world.client.post(**world.request("create_webhook_endpoint"), headers=key)
    monkeypatch.setattr("service.webhooks.endpoints.service.refusal_of", _refuse)
    again = world.client.post(**world.request("create_webhook_endpoint"), headers=key)
    assert (again.status_code, again.json()) == (200, first.json())
    assert world.client.post(**world.request("create_webhook_endpoint")).status_code == 400


async def _refuse(*_: object) -> InvalidRequest:
    return InvalidRequest("The host has no address.", param="url")


def test_an_upload_is_completed_and_its_part_sent_once(world: World) -> None:
    row = b'{"a": 1}\n'
    announced = {"filename": "a.jsonl", "purpose": "fine-tune", "bytes": len(row), "mime_type": "text/jsonl"}
    home = f"/uploads/{world.client.post('/uploads', json=announced).json()['id']}"

    def part(data: bytes = row) -> httpx.Response:
        return world.client.post(f"{home}/parts", files={"data": ("p", data)}, headers={"Idempotency-Key": "part"})

    first = part()
    assert part().json() == first.json()
    assert len(world.client.get(home).json()["parts"]) == 1
    body, key = {"part_ids": [first.json()["id"]]}, {"Idempotency-Key": "complete"}
    done = world.client.post(f"{home}/complete", json=body, headers=key)
    assert done.json()["status"] == "completed", done.text
    before = world.counts()
    assert world.client.post(f"{home}/complete", json=body, headers=key).json() == done.json()
    again = part()
    assert (again.status_code, again.json()) == (200, first.json()), "also once its upload has ended"
    assert part(b"{}").status_code == 409
    assert world.client.post(f"{home}/parts", files={"data": ("p", row)}).json()["error"]["code"] == "upload_completed"
    assert world.counts() == before


def test_a_key_of_another_project_gets_no_kept_answer(world: World) -> None:
    key = {"Idempotency-Key": "shared"}
    mine = world.client.post(**world.request("create_upload"), headers=key).json()
    with world.api.client("another") as client:
        assert client.post(**world.request("create_upload"), headers=key).json()["id"] != mine["id"]
