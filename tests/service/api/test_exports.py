"""Exports as the API shows them; `tests/service/worker/test_exports.py` makes them."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import select, update

from service.bases import repository as bases
from service.controller import exports as step
from service.exports import lifecycle, repository
from service.kit.db import db_now
from service.kit.outbox import OutboxRow, Topic
from service.queue.rq import RqJobQueue
from service.tables.exports import ModelExportRow
from service.tables.models import FineTunedModelRow
from tests.fixtures.databases import api_on, client_with
from tests.fixtures.service import RunningApi, upload
from tests.service.api.test_base_cards import make_card
from tests.service.api.test_chains import SHAPE, created, finish, method
from trainer.contract.family import MethodFit

QUEUE = RqJobQueue("unix:///nowhere")
DATA = b"GGUF" + bytes(range(256)) * 20


@pytest.fixture
def model(api: RunningApi, client: httpx.Client, file_id: str) -> str:
    return finish(api, created(client, file_id, "tiny", suffix="desk")["id"], checkpoint=2)


def ask(client: httpx.Client, model: str, **body: Any) -> httpx.Response:
    return client.post(f"/models/{model}/exports", json=body)


def asked(client: httpx.Client, model: str, **body: Any) -> dict[str, Any]:
    answer = ask(client, model, **body)
    assert answer.status_code == 200, answer.text
    return answer.json()


def make(api: RunningApi, export_id: str, data: bytes = DATA) -> None:
    """Publish an export as a worker does."""
    with api.context.db.write() as session:
        session.execute(update(ModelExportRow).where(ModelExportRow.id != export_id).values(status="failed"))
        export = lifecycle.start_export(session, owner="w", lease_seconds=60)
        assert export is not None
        assert export.id == export_id
    key = f"{lifecycle.attempt_folder(export, export.lease_token)}/{export.filename}"
    stored = api.context.storage.put(key, [data])
    with api.context.db.write() as session:
        lifecycle.publish_export(
            session,
            export,
            token=export.lease_token,
            blob_key=key,
            size=stored.bytes,
            sha256=stored.sha256,
            verification={
                "rows": 5,
                "merge_difference": 0.0,
                "file_difference": 0.0,
                "rounding_error": 0.01,
                "tokenizer_rows": 3,
            },
        )


def row(api: RunningApi, export_id: str) -> ModelExportRow | None:
    with api.context.db.read() as session:
        return repository.by_id(session, export_id)


def test_an_export_is_requested_made_and_downloaded_in_parts(api: RunningApi, client: httpx.Client, model: str) -> None:
    export = asked(client, model, format="gguf", precision="q8_0")
    assert (export["object"], export["status"], export["model"]) == ("model.export", "queued", model)
    assert (export["bytes"], export["sha256"], export["error"]) == (None, None, None)
    assert export["filename"] == f"{model.replace(':', '-')}-q8_0.gguf"
    assert export["expires_at"] - export["created_at"] == 7 * 86400
    path = f"/models/{model}/exports/{export['id']}"
    refused = client.get(f"{path}/content")
    assert (refused.status_code, refused.json()["error"]["code"]) == (409, "not_ready")
    make(api, export["id"])
    ready = client.get(path).json()
    assert (ready["status"], ready["bytes"]) == ("ready", len(DATA))
    assert ready["sha256"] == hashlib.sha256(DATA).hexdigest()
    assert ready["verification"]["rounding_error"] == 0.01
    whole = client.get(f"{path}/content")
    assert whole.content == DATA
    assert whole.headers["etag"] == f'"{ready["sha256"]}"'
    assert whole.headers["content-digest"].startswith("sha-256=:")
    part = client.get(f"{path}/content", headers={"Range": "bytes=4-", "If-Range": whole.headers["etag"]})
    assert (part.status_code, part.content) == (206, DATA[4:])
    assert part.headers["content-range"] == f"bytes 4-{len(DATA) - 1}/{len(DATA)}"
    assert client.get(f"{path}/content", headers={"If-None-Match": whole.headers["etag"]}).status_code == 304
    assert client.get(f"{path}/content", headers={"Range": "bytes=999999-"}).status_code == 416


def test_the_same_is_made_once_and_kept_longer(api: RunningApi, client: httpx.Client, model: str) -> None:
    short = {"anchor": "created_at", "seconds": 3600}
    first = asked(client, model, format="merged", expires_after=short)
    assert (first["precision"], first["expires_at"] - first["created_at"]) == ("bf16", 3600)
    again = asked(client, model, format="merged", precision="bf16", expires_after={**short, "seconds": 7200})
    assert again["id"] == first["id"]
    assert again["expires_at"] >= first["created_at"] + 7200
    assert asked(client, model, format="merged", expires_after=short)["expires_at"] == again["expires_at"]
    other = asked(client, model, format="merged", precision="f32")
    assert other["id"] != first["id"]
    found = client.get(f"/models/{model}/exports").json()
    assert [item["id"] for item in found["data"]] == [other["id"], first["id"]]
    page = client.get(f"/models/{model}/exports", params={"limit": 1}).json()
    assert (page["has_more"], page["last_id"]) == (True, other["id"])
    rest = client.get(f"/models/{model}/exports", params={"after": other["id"]}).json()
    assert [item["id"] for item in rest["data"]] == [first["id"]]


def test_a_failed_export_is_made_anew(api: RunningApi, client: httpx.Client, model: str) -> None:
    first = asked(client, model, format="gguf")
    with api.context.db.write() as session:
        values = {"status": "failed", "error": {"code": "x", "message": "词表不支持", "param": None}}
        session.execute(update(ModelExportRow).where(ModelExportRow.id == first["id"]).values(**values))
    refused = client.get(f"/models/{model}/exports/{first['id']}/content")
    assert refused.status_code == 409
    assert "词表不支持" in refused.json()["error"]["message"]
    second = asked(client, model, format="gguf")
    assert (second["status"], second["error"]) == ("queued", None)
    assert second["id"] != first["id"]


def test_more_exports_than_may_wait_are_refused_with_the_bound(tmp_path: Path) -> None:
    with api_on("sqlite", tmp_path, max_queued_exports=1) as api, client_with(api, "导出") as client:
        file_id = upload(client).json()["id"]
        model = finish(api, created(client, file_id, "tiny")["id"])
        first = asked(client, model, format="gguf")
        refused = ask(client, model, format="merged")
        error = refused.json()["error"]
        assert (refused.status_code, error["type"], error["code"]) == (429, "rate_limit_error", "too_many_at_once")
        assert "1 exports of this project are waiting already" in error["message"]
        assert int(refused.headers["retry-after"]) > 0
        assert asked(client, model, format="gguf")["id"] == first["id"], "the same export takes no second place"
        make(api, first["id"])
        assert ask(client, model, format="merged").status_code == 200


def test_a_checkpoint_is_exported_by_its_name(client: httpx.Client, model: str) -> None:
    name = f"{model}:ckpt-step-2"
    export = asked(client, name, format="adapter")
    assert (export["model"], export["precision"]) == (name, None)
    assert export["filename"].endswith("-ckpt-step-2-adapter.zip")
    assert client.get(f"/models/{model}/exports/{export['id']}").status_code == 404, "it is the checkpoint's"
    assert ask(client, f"{model}:ckpt-step-3", format="adapter").status_code == 400


@pytest.mark.slow
@pytest.mark.parametrize(
    ("body", "param", "word"),
    [
        ({"format": "merged", "precision": "q8_0"}, "precision", "for gguf alone"),
        ({"format": "adapter", "precision": "f16"}, "precision", "leave precision out"),
        ({"format": "onnx"}, "format", "gguf"),
        ({"format": "gguf", "precision": "q2"}, "precision", "q8_0"),
        ({}, "format", "required"),
        ({"format": "gguf", "expires_after": {"anchor": "created_at", "seconds": 5}}, "expires_after.seconds", "3600"),
        ({"format": "gguf", "quantise": True}, "quantise", "unknown argument"),
    ],
)
def test_requests_that_are_refused(client: httpx.Client, model: str, body: Any, param: str, word: str) -> None:
    refused = ask(client, model, **body)
    assert refused.status_code == 400, refused.text
    assert refused.json()["error"]["param"] == param
    assert word in refused.json()["error"]["message"]
    assert client.get(f"/models/{model}/exports").json()["data"] == []


def test_models_that_have_no_such_form(api: RunningApi, client: httpx.Client, file_id: str) -> None:
    assert "base model" in ask(client, "tiny", format="gguf").json()["error"]["message"]
    assert ask(client, "ft:tiny:burnish::nothing", format="gguf").status_code == 404
    unfinished = created(client, file_id, "tiny")["id"]
    refused = ask(client, unfinished, format="gguf")
    assert (refused.status_code, refused.json()["error"]["code"]) == (409, "not_ready")
    reward = finish(api, created(client, file_id, "tiny", method=method("reward"))["id"])
    assert "score head" in ask(client, reward, format="gguf").json()["error"]["message"]
    assert ask(client, reward, format="merged").status_code == 200
    whole = method("pretraining", architecture=SHAPE, tokenizer="byte")
    scratch = finish(api, created(client, file_id, "from-scratch", method=whole)["id"])
    assert "no adapter" in ask(client, scratch, format="adapter").json()["error"]["message"]
    assert ask(client, scratch, format="gguf").status_code == 200


def test_a_gguf_that_nobody_could_write_is_refused_when_it_is_asked_for(
    api: RunningApi, client: httpx.Client, model: str
) -> None:
    entry = api.context.catalog.find_base("tiny")
    assert entry is not None
    card = make_card(gguf=MethodFit(works=False, reason="models of the family 甲 are not written as GGUF."))
    with api.context.db.write() as session:
        bases.store_findings(session, entry, files=None, card=card, problem=None)
    error = ask(client, model, format="gguf").json()["error"]
    assert error["message"] == (
        "What is trained on tiny cannot be exported as GGUF: models of the family 甲 are not written as GGUF. Export "
        "it as merged or adapter."
    )
    assert (error["param"], error["code"]) == ("format", "unsupported_export")
    assert asked(client, model, format="merged")["status"] == "queued"
    with api.context.db.write() as session:
        bases.delete_base_row(session, "tiny")


def test_another_projects_model_is_not_there(client: httpx.Client, stranger: httpx.Client, model: str) -> None:
    export = asked(client, model, format="gguf")
    path = f"/models/{model}/exports"
    answers = [
        stranger.get(path),
        ask(stranger, model, format="gguf"),
        stranger.get(f"{path}/{export['id']}"),
        stranger.get(f"{path}/{export['id']}/content"),
        stranger.delete(f"{path}/{export['id']}"),
    ]
    assert [answer.status_code for answer in answers] == [404] * 5
    assert client.get(f"{path}/{export['id']}").status_code == 200


def test_an_idempotency_key_gives_the_first_answer(client: httpx.Client, model: str) -> None:
    headers = {"Idempotency-Key": f"export-{model}"}
    path = f"/models/{model}/exports"
    first = client.post(path, json={"format": "gguf"}, headers=headers)
    assert client.post(path, json={"format": "gguf"}, headers=headers).json() == first.json()
    assert client.post(path, json={"format": "merged"}, headers=headers).status_code == 409


def test_a_deleted_export_takes_its_bytes_along(api: RunningApi, client: httpx.Client, model: str) -> None:
    export = asked(client, model, format="gguf")
    make(api, export["id"])
    path = f"/models/{model}/exports/{export['id']}"
    gone = {"id": export["id"], "object": "model.export", "deleted": True}
    assert client.delete(path).json() == gone
    assert [client.delete(path).status_code, client.get(path).status_code] == [404, 404]
    folder = f"jobs/{export['fine_tuning_job_id']}/exports/{export['id']}"
    with api.context.db.read() as session:
        found = session.scalars(select(OutboxRow).where(OutboxRow.topic == Topic.DELETE_BLOBS)).all()
    assert folder in [item.payload.get("prefix") for item in found]


def test_exports_go_with_their_model_their_job_and_their_time(
    api: RunningApi, client: httpx.Client, model: str, file_id: str
) -> None:
    of_model, of_checkpoint = (asked(client, name, format="gguf") for name in (model, f"{model}:ckpt-step-2"))
    late = asked(client, f"{model}:ckpt-step-2", format="adapter")
    assert client.delete(f"/models/{model}").status_code == 200
    assert client.get(f"/models/{model}/exports/{of_model['id']}").status_code == 404
    step.remove_superfluous(api.context, QUEUE)
    assert row(api, of_model["id"]) is None
    assert row(api, of_checkpoint["id"]) is not None
    make(api, late["id"])
    with api.context.db.write() as session:
        session.execute(update(ModelExportRow).where(ModelExportRow.id == late["id"]).values(expires_at=db_now() - 1))
    step.remove_superfluous(api.context, QUEUE)
    assert row(api, late["id"]) is None
    assert client.delete(f"/fine_tuning/jobs/{of_checkpoint['fine_tuning_job_id']}").status_code == 200
    assert row(api, of_checkpoint["id"]) is None
    with api.context.db.read() as session:
        assert session.scalar(select(FineTunedModelRow).where(FineTunedModelRow.id == model)) is None


def test_an_export_of_a_dead_worker_is_made_again_and_only_once(
    api: RunningApi, client: httpx.Client, model: str
) -> None:
    export_id = asked(client, model, format="gguf")["id"]
    with api.context.db.write() as session:
        session.execute(update(ModelExportRow).where(ModelExportRow.id != export_id).values(status="failed"))
        dead = lifecycle.start_export(session, owner="w1", lease_seconds=-1)
    assert dead is not None
    assert client.get(f"/models/{model}/exports/{export_id}").json()["status"] == "running"
    assert step.end_expired_leases(api.context, QUEUE) == 1
    assert client.get(f"/models/{model}/exports/{export_id}").json()["status"] == "queued"
    make(api, export_id)
    with pytest.raises(Exception, match="no longer this worker's"), api.context.db.write() as session:
        lifecycle.publish_export(
            session, dead, token=dead.lease_token, blob_key="k", size=1, sha256="0" * 64, verification=None
        )
    assert client.get(f"/models/{model}/exports/{export_id}").json()["bytes"] == len(DATA)


def test_an_export_fails_for_good_after_some_deaths(api: RunningApi, client: httpx.Client, model: str) -> None:
    export_id = asked(client, model, format="gguf")["id"]
    for _ in range(api.context.settings.max_failures):
        with api.context.db.write() as session:
            session.execute(update(ModelExportRow).where(ModelExportRow.id != export_id).values(status="failed"))
            assert lifecycle.start_export(session, owner="w1", lease_seconds=-1) is not None
        step.end_expired_leases(api.context, QUEUE)
    found = client.get(f"/models/{model}/exports/{export_id}").json()
    assert (found["status"], found["error"]["code"]) == ("failed", "worker_lost")
