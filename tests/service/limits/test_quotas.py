"""Quotas: nothing is kept beyond them, however many ask at the same time, and what waits for them says so."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
from sqlalchemy import update

from service.controller.dispatch import dispatch_jobs, refill_queue
from service.controller.holding import hold_jobs
from service.jobs import lifecycle, results_repository
from service.kit.db import db_now
from service.limits import repository as limits
from service.limits.values import QuotaLimits
from service.queue.memory import MemoryJobQueue
from service.storage.base import BlobStat
from service.tables.files import FileRow
from service.tables.jobs import JobRow
from service.tables.limits import TrainingSpanRow
from tests.fixtures.databases import client_with, project_of
from tests.fixtures.service import GOOD_JSONL, RunningApi, upload
from tests.service.limits.conftest import SetLimits

JOBS = "/fine_tuning/jobs"
SIZE = len(GOOD_JSONL)


def refused(answer: httpx.Response) -> str:
    """Return the sentence of a refusal for a quota."""
    assert answer.status_code == 429, answer.text
    error = answer.json()["error"]
    assert (error["type"], error["code"]) == ("insufficient_quota", "insufficient_quota")
    assert answer.headers["x-should-retry"] == "false"
    assert "retry-after" not in answer.headers
    return error["message"]


def blobs(api: RunningApi) -> set[BlobStat]:
    return set(api.context.storage.list(""))


def own(client: httpx.Client) -> dict[str, Any]:
    return client.get("/limits").json()


def create(client: httpx.Client, file_id: str) -> httpx.Response:
    return client.post(JOBS, json={"model": "tiny", "training_file": file_id})


def queued(api: RunningApi, client: httpx.Client, count: int = 1) -> list[str]:
    """Create jobs whose files are checked."""
    file_id = upload(client).json()["id"]
    job_ids = [create(client, file_id).json()["id"] for _ in range(count)]
    with api.context.db.write() as session:
        for job_id in job_ids:
            assert lifecycle.queue_up(session, job_id)
    return job_ids


def start(api: RunningApi, job_id: str) -> JobRow | None:
    with api.context.db.write() as session:
        defaults = QuotaLimits.from_settings(api.context.settings)
        return lifecycle.start_job(session, job_id, owner="w", lease_seconds=60, defaults=defaults)


def end(api: RunningApi, job_id: str) -> None:
    with api.context.db.write() as session:
        assert lifecycle.cancel_job(session, job_id)


def messages(client: httpx.Client, job_id: str) -> list[str]:
    return [event["message"] for event in client.get(f"{JOBS}/{job_id}/events").json()["data"]]


def test_limits_and_use_are_shown(api: RunningApi, client: httpx.Client, set_limits: SetLimits) -> None:
    unlimited = {"limit": None, "source": "default"}
    shown = own(client)
    resets = datetime.fromtimestamp(shown["training_minutes"].pop("resets_at"), UTC)
    assert (resets.day, resets.hour, resets > datetime.now(UTC)) == (1, 0, True)
    assert shown == {
        "object": "organization.project.limits",
        "project_id": project_of(client),
        "stored_bytes": {**unlimited, "used": 0},
        "running_jobs": {**unlimited, "used": 0},
        "queued_jobs": {"limit": 50, "source": "default", "used": 0},
        "training_minutes": {**unlimited, "used": 0},
        "requests_per_minute": unlimited,
        "tokens_per_minute": unlimited,
    }
    (job_id,) = queued(api, client)
    start(api, job_id)
    set_limits(stored_bytes=1000, queued_jobs=None)
    changed = set_limits(running_jobs=3, tokens_per_minute=7)
    assert changed["stored_bytes"] == {"limit": 1000, "source": "project", "used": SIZE}
    assert changed["queued_jobs"] == {"limit": None, "source": "project", "used": 0}
    assert changed["running_jobs"] == {"limit": 3, "source": "project", "used": 1}
    assert changed["tokens_per_minute"] == {"limit": 7, "source": "project"}
    back = set_limits(queued_jobs="default", stored_bytes="default")
    assert back["queued_jobs"] == {"limit": 50, "source": "default", "used": 0}
    assert back["stored_bytes"] == {**unlimited, "used": SIZE}
    assert back["running_jobs"]["limit"] == 3
    path = f"/organization/projects/{project_of(client)}/limits"
    seen = client.get(path).json()
    assert {**seen, "training_minutes": None} == {**own(client), "training_minutes": None}
    with client_with(api, "somebody else", "read", "write") as other:
        assert other.get("/limits").json()["project_id"] == project_of(other)
        assert (other.get(path).status_code, other.post(path, json={}).status_code) == (403, 403)
    assert client.get("/organization/projects/proj_x/limits").status_code == 404
    assert client.post("/organization/projects/proj_x/limits", json={}).status_code == 404


@pytest.mark.parametrize(
    "body",
    [
        {"stored_bytes": -1},
        {"stored_bytes": 2**60},
        {"running_jobs": 1.5},
        {"running_jobs": True},
        {"queued_jobs": "很多"},
        {"requests_per_minute": 0},
        {"gpus": 1},
    ],
)
def test_bad_limits(client: httpx.Client, body: dict[str, Any]) -> None:
    answer = client.post(f"/organization/projects/{project_of(client)}/limits", json=body)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"].startswith(next(iter(body)))
    assert own(client)["stored_bytes"]["limit"] is None


def test_a_file_is_kept_up_to_the_last_byte(api: RunningApi, client: httpx.Client, set_limits: SetLimits) -> None:
    set_limits(stored_bytes=2 * SIZE - 1)
    assert upload(client).status_code == 200
    before = blobs(api)
    sentence = refused(upload(client, filename="客服.jsonl"))
    assert sentence.startswith(f"'客服.jsonl' is larger than the {SIZE - 1} bytes that this project may still store: ")
    assert blobs(api) == before
    assert len(client.get("/files").json()["data"]) == 1
    set_limits(stored_bytes=2 * SIZE)
    assert upload(client).status_code == 200
    client.delete(f"/files/{client.get('/files').json()['data'][0]['id']}")
    assert own(client)["stored_bytes"]["used"] == SIZE
    assert upload(client).status_code == 200
    refused(upload(client))


def test_a_large_file_is_refused_while_it_comes_in(client: httpx.Client, set_limits: SetLimits) -> None:
    set_limits(stored_bytes=100_000)
    head = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.jsonl"\r\n\r\n'
    row = b'{"text":"' + b"x" * 1000 + b'"}\n'
    # The form has no end: it is refused before that is noticed.
    answer = client.post(
        "/files", content=head + row * 1000, headers={"Content-Type": "multipart/form-data; boundary=b"}
    )
    assert "larger than the 100000 bytes" in refused(answer)
    assert own(client)["stored_bytes"]["used"] == 0
    assert client.get("/files").json()["data"] == []


def test_of_uploads_at_the_same_time_only_as_many_as_fit_are_kept(
    api: RunningApi, client: httpx.Client, set_limits: SetLimits
) -> None:
    set_limits(stored_bytes=3 * SIZE + SIZE // 2)
    before = len(blobs(api))
    barrier = threading.Barrier(8)

    def send(_: int) -> int:
        barrier.wait()
        return upload(client).status_code

    with ThreadPoolExecutor(8) as pool:
        statuses = sorted(pool.map(send, range(8)))
    assert statuses == [200] * 3 + [429] * 5
    assert len(blobs(api)) == before + 3
    assert own(client)["stored_bytes"]["used"] == 3 * SIZE


def test_an_announced_upload_keeps_its_room(api: RunningApi, client: httpx.Client, set_limits: SetLimits) -> None:
    set_limits(stored_bytes=2 * SIZE)
    announced = {"filename": "a.jsonl", "purpose": "fine-tune", "bytes": SIZE, "mime_type": "text/jsonl"}
    first = client.post("/uploads", json=announced).json()["id"]
    assert own(client)["stored_bytes"]["used"] == SIZE
    refused(client.post("/uploads", json=announced | {"bytes": SIZE + 1}))
    part = client.post(f"/uploads/{first}/parts", files={"data": GOOD_JSONL}).json()["id"]
    assert own(client)["stored_bytes"]["used"] == SIZE, "the part is what was announced"
    assert upload(client).status_code == 200
    before = blobs(api)
    refused(client.post(f"/uploads/{first}/parts", files={"data": GOOD_JSONL}))
    assert blobs(api) == before
    completed = client.post(f"/uploads/{first}/complete", json={"part_ids": [part]})
    assert completed.status_code == 200, completed.text
    assert own(client)["stored_bytes"]["used"] == 2 * SIZE
    refused(client.post("/uploads", json=announced))
    client.delete(f"/files/{completed.json()['file']['id']}")
    second = client.post("/uploads", json=announced).json()["id"]
    client.post(f"/uploads/{second}/cancel")
    assert own(client)["stored_bytes"]["used"] == SIZE


def test_models_and_checkpoints_count_and_a_full_project_creates_no_job(
    api: RunningApi, client: httpx.Client, set_limits: SetLimits
) -> None:
    (job_id,) = queued(api, client)
    job = start(api, job_id)
    assert job is not None
    with api.context.db.write() as session:
        for step in (1, 2):
            results_repository.add_checkpoint(
                session, job_id, step=step, metrics={}, blob_prefix="jobs/x", manifest_sha256="0", size=500
            )
    assert own(client)["stored_bytes"]["used"] == SIZE + 1000
    set_limits(stored_bytes=SIZE + 1000)
    file_id = client.get("/files").json()["data"][0]["id"]
    assert "no room for what a job makes" in refused(create(client, file_id))
    end(api, job_id)
    assert client.delete(f"{JOBS}/{job_id}").status_code == 200
    assert own(client)["stored_bytes"]["used"] == SIZE
    assert create(client, file_id).status_code == 200


def test_no_more_jobs_are_created_than_may_wait(api: RunningApi, client: httpx.Client, set_limits: SetLimits) -> None:
    set_limits(queued_jobs=2)
    file_id = upload(client).json()["id"]
    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(lambda _: create(client, file_id), range(6)))
    assert sorted(answer.status_code for answer in answers) == [200] * 2 + [429] * 4
    assert "2 jobs of this project wait to run or are paused" in refused(create(client, file_id))
    first, second = [answer.json()["id"] for answer in answers if answer.is_success]
    client.post(f"{JOBS}/{first}/pause")
    refused(create(client, file_id))
    end(api, second)
    assert create(client, file_id).status_code == 200
    assert own(client)["queued_jobs"]["used"] == 2


def test_a_running_job_counts_as_no_queued_one(api: RunningApi, client: httpx.Client, set_limits: SetLimits) -> None:
    set_limits(queued_jobs=1)
    (job_id,) = queued(api, client)
    file_id = client.get("/files").json()["data"][0]["id"]
    refused(create(client, file_id))
    assert start(api, job_id) is not None
    assert create(client, file_id).status_code == 200


def test_a_job_waits_until_another_ends(api: RunningApi, client: httpx.Client, set_limits: SetLimits) -> None:
    set_limits(running_jobs=1)
    queue = MemoryJobQueue()
    first, second, third = queued(api, client, 3)
    dispatch_jobs(api.context, queue)
    assert {first, second, third} <= queue.waiting_ids()
    assert start(api, first) is not None
    assert start(api, second) is None
    assert client.get(f"{JOBS}/{second}").json()["held_by"] == "running_jobs"
    sentence = "The project may run one job at a time: the job starts when another ends."
    assert messages(client, second)[0] == sentence
    hold_jobs(api.context, queue)
    hold_jobs(api.context, queue)
    assert client.get(f"{JOBS}/{third}").json()["held_by"] == "running_jobs"
    assert messages(client, third).count(sentence) == 1
    emptied = MemoryJobQueue()
    refill_queue(api.context, emptied)
    assert not {second, third} & emptied.waiting_ids(), "held jobs are not sent in vain"
    end(api, first)
    hold_jobs(api.context, queue)
    dispatch_jobs(api.context, emptied)
    assert {second, third} & emptied.waiting_ids() == {second}, "the oldest goes first, and one alone"
    assert client.get(f"{JOBS}/{second}").json()["held_by"] is None
    assert messages(client, second)[0] == "The project's limits allow the job to start"
    hold_jobs(api.context, queue)
    assert client.get(f"{JOBS}/{third}").json()["held_by"] == "running_jobs"
    assert start(api, second) is not None
    assert start(api, third) is None
    set_limits(running_jobs=None)
    hold_jobs(api.context, queue)
    assert start(api, third) is not None


def test_of_claims_at_the_same_time_only_as_many_as_may_run_succeed(
    api: RunningApi, client: httpx.Client, set_limits: SetLimits
) -> None:
    set_limits(running_jobs=2)
    job_ids = queued(api, client, 6)
    barrier = threading.Barrier(6)

    def claim(job_id: str) -> bool:
        barrier.wait()
        return start(api, job_id) is not None

    with ThreadPoolExecutor(6) as pool:
        assert sorted(pool.map(claim, job_ids)) == [False] * 4 + [True] * 2
    assert own(client)["running_jobs"]["used"] == 2


def test_a_held_job_can_be_paused_resumed_and_cancelled(
    api: RunningApi, client: httpx.Client, set_limits: SetLimits
) -> None:
    set_limits(running_jobs=0)
    (job_id,) = queued(api, client)
    hold_jobs(api.context, MemoryJobQueue())
    assert messages(client, job_id)[0] == (
        "The project may run no jobs: the job starts when an administrator allows it."
    )
    paused = client.post(f"{JOBS}/{job_id}/pause").json()
    assert (paused["phase"], paused["held_by"]) == ("paused", None)
    assert client.post(f"{JOBS}/{job_id}/resume").json()["phase"] == "queued"
    assert start(api, job_id) is None
    assert client.get(f"{JOBS}/{job_id}").json()["held_by"] == "running_jobs"
    cancelled = client.post(f"{JOBS}/{job_id}/cancel").json()
    assert (cancelled["status"], cancelled["held_by"]) == ("cancelled", None)


def spend(api: RunningApi, job_id: str, *, ago: float, seconds: float) -> None:
    """Let a job's attempt have begun some time ago and lasted for some."""
    with api.context.db.write() as session:
        begin = db_now() - ago
        session.execute(
            update(TrainingSpanRow)
            .where(TrainingSpanRow.job_id == job_id)
            .values(started_at=begin, ended_at=begin + seconds)
        )


def test_the_months_training_time(
    api: RunningApi, client: httpx.Client, set_limits: SetLimits, monkeypatch: pytest.MonkeyPatch
) -> None:
    with api.context.db.read() as session:
        _, following = limits.current_month(session)
        now = session.scalar(limits.select(db_now())) or 0.0
    # The month as it is five hours after its beginning, whatever the day of this test.
    monkeypatch.setattr(limits, "current_month", lambda _: (now - 18_000, following))
    first, second = queued(api, client, 2)
    start(api, first)
    end(api, first)
    spend(api, first, ago=3600, seconds=600)
    assert own(client)["training_minutes"]["used"] == pytest.approx(10, abs=0.1)
    spend(api, first, ago=19_000, seconds=1600)
    assert own(client)["training_minutes"]["used"] == pytest.approx(10, abs=0.1), "last month's part does not count"
    set_limits(training_minutes=11)
    client.delete(f"{JOBS}/{first}")
    assert own(client)["training_minutes"]["used"] == pytest.approx(10, abs=0.1), "deleting gives no time back"
    set_limits(training_minutes=10)
    spend(api, first, ago=3600, seconds=601)
    file_id = client.get("/files").json()["data"][0]["id"]
    sentence = refused(create(client, file_id))
    day = datetime.fromtimestamp(following, UTC).strftime("%Y-%m-%d")
    assert sentence.startswith(
        f"The 10 minutes of training that this project has in a month are used up; the next month begins on {day} (UTC)"
    )
    assert start(api, second) is None
    assert client.get(f"{JOBS}/{second}").json()["held_by"] == "training_minutes"
    assert f"the next month begins on {day} (UTC): the job starts then" in messages(client, second)[0]
    monkeypatch.setattr(limits, "current_month", lambda _: (now + 1, following))
    hold_jobs(api.context, MemoryJobQueue())
    assert start(api, second) is not None, "the next month has come"


def test_time_runs_while_an_attempt_does_and_no_longer(api: RunningApi, client: httpx.Client) -> None:
    (job_id,) = queued(api, client)
    for attempt in (1, 2):
        job = start(api, job_id)
        assert job is not None
        assert job.lease_token == attempt
        with api.context.db.write() as session:
            lifecycle.requeue_job(session, job_id, attempt, reason="its worker is stopping")
    with api.context.db.write() as session:
        spans = session.query(TrainingSpanRow).filter_by(job_id=job_id).all()
        assert [span.ended_at is not None for span in spans] == [True, True]
    assert start(api, job_id) is not None
    with api.context.db.write() as session:
        session.execute(
            update(TrainingSpanRow).where(TrainingSpanRow.job_id == job_id).values(started_at=db_now() - 100)
        )
        session.execute(update(JobRow).where(JobRow.id == job_id).values(lease_expires_at=db_now() - 40))
    end(api, job_id)
    with api.context.db.read() as session:
        span = session.query(TrainingSpanRow).filter_by(job_id=job_id).order_by(TrainingSpanRow.seq.desc()).first()
        assert span is not None
        assert span.ended_at is not None
        assert span.ended_at - span.started_at == pytest.approx(60, abs=5), "a silent worker ran until its lease ended"


def test_expired_files_make_room(api: RunningApi, client: httpx.Client, set_limits: SetLimits) -> None:
    from service.controller.garbage import delete_expired_files

    set_limits(stored_bytes=SIZE)
    file_id = upload(client).json()["id"]
    refused(upload(client))
    with api.context.db.write() as session:
        session.execute(update(FileRow).where(FileRow.id == file_id).values(expires_at=db_now() - 1))
    delete_expired_files(api.context, MemoryJobQueue())
    assert upload(client).status_code == 200
