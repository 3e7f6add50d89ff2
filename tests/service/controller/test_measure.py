from __future__ import annotations

import time
from collections.abc import Generator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update
from sqlalchemy.orm import Session

from service.context import Context
from service.controller.measure import set_gauges
from service.jobs import lifecycle
from service.kit import ids, metrics, outbox
from service.kit.db import db_now
from service.kit.outbox import Topic
from service.limits.service import LimitHold
from service.queue.memory import MemoryJobQueue
from service.tables.jobs import JobRow, JobState
from service.tables.keys import ProjectRow
from service.tables.workers import WorkerRow
from service.workers import repository as workers
from service.workers.capacity import Capacity
from tests.fixtures.postgres import new_database
from tests.fixtures.service import make_context

SERVERS = ["sqlite", pytest.param("postgresql", marks=pytest.mark.integration)]


@pytest.fixture(params=SERVERS)
def either(request: pytest.FixtureRequest, tmp_path: Path) -> Generator[Context]:
    with ExitStack() as stack:
        more: dict[str, Any] = {}
        if request.param == "postgresql":
            more = {"database_url": stack.enter_context(new_database()), "secret_key": "k" * 32}
        context = make_context(tmp_path, **more)
        stack.callback(context.db.close)
        yield context


def add(session: Session, state: JobState, **columns: Any) -> JobRow:
    given = {"model": "tiny", "base": "tiny", "method": {"type": "supervised"}, "training_file": "file-a", "seed": 1}
    job_id = ids.new_id(ids.JOB)
    job = JobRow(id=job_id, model_name=f"ft:{job_id}", project_id="proj_test", state=state, **given, **columns)
    session.add(job)
    session.flush()
    return job


def shown(gauge: Any) -> dict[tuple[str, ...], float]:
    (family,) = gauge.collect()
    return {tuple(sample.labels.values()): sample.value for sample in family.samples}


def test_an_empty_database_shows_zeros_for_every_kind(either: Context) -> None:
    set_gauges(either, MemoryJobQueue())
    assert shown(metrics.JOBS) == {(state,): 0 for state in ("validating", "queued", "running", "paused")}
    assert len(shown(metrics.QUEUE_DEPTH)) == len(shown(metrics.QUEUE_AGE)) == 9
    assert set(shown(metrics.OUTBOX_LAG)) == {(topic.value,) for topic in Topic}
    assert shown(metrics.HEARTBEAT_AGE) == {("job",): 0, ("worker",): 0}
    assert time.time() - shown(metrics.MEASURED)[()] < 600


def test_the_gauges_show_what_the_database_has(either: Context) -> None:
    lease = either.settings.lease_seconds
    with either.db.write() as session:
        session.add(ProjectRow(id="proj_test", name="test"))
        session.flush()
        add(session, JobState.VALIDATING)
        add(session, JobState.SUCCEEDED)
        add(session, JobState.QUEUED, queued_at=db_now() - 1000, priority=5)
        add(session, JobState.QUEUED, queued_at=db_now() - 100)
        add(session, JobState.QUEUED, queued_at=db_now() - 3000)
        add(session, JobState.QUEUED, created_at=db_now() - 50, priority=-1, waits_for="ftjob-x")
        lifecycle.hold_job(session, add(session, JobState.QUEUED, queued_at=db_now()), LimitHold("running_jobs", "x"))
        add(session, JobState.RUNNING, lease_expires_at=db_now() + lease - 20)
        add(session, JobState.RUNNING, lease_expires_at=db_now() + lease)
        for name in ("a", "b"):
            workers.report_worker(session, name, name=name, capacity=Capacity())
        session.execute(update(WorkerRow).where(WorkerRow.id == "b").values(seen_at=db_now() - lease - 30))
        outbox.add_effect(session, Topic.DELETE_BLOBS, delay=-200, key="k")
        outbox.add_effect(session, Topic.DELETE_BLOBS, delay=3600, key="k")
    set_gauges(either, MemoryJobQueue())
    jobs = {"validating": 1, "queued": 5, "running": 2, "paused": 0}
    assert shown(metrics.JOBS) == {(state,): count for state, count in jobs.items()}
    depth = {kind: count for kind, count in shown(metrics.QUEUE_DEPTH).items() if count}
    assert depth == {("high", "worker"): 1, ("normal", "worker"): 2, ("low", "job"): 1, ("normal", "limit"): 1}
    ages = shown(metrics.QUEUE_AGE)
    about = {("high", "worker"): 1000, ("normal", "worker"): 3000, ("low", "job"): 50, ("high", "job"): 0}
    for kind, age in about.items():
        assert ages[kind] == pytest.approx(age, abs=60)
    assert shown(metrics.WORKERS) == {(): 1}
    assert shown(metrics.HEARTBEAT_AGE)[("worker",)] == pytest.approx(lease + 30, abs=60)
    assert 20 <= shown(metrics.HEARTBEAT_AGE)[("job",)] < 80
    assert shown(metrics.OUTBOX_PENDING)[("delete_blobs",)] == 2
    assert shown(metrics.OUTBOX_LAG)[("delete_blobs",)] == pytest.approx(200, abs=60)


def test_a_job_shows_since_when_it_is_queued(either: Context) -> None:
    with either.db.write() as session:
        session.add(ProjectRow(id="proj_test", name="test"))
        session.flush()
        job = add(session, JobState.VALIDATING)
        assert job.queued_at is None
        lifecycle.queue_up(session, job.id)
    with either.db.read() as session:
        queued = session.get_one(JobRow, job.seq)
        assert queued.queued_at is not None
        assert queued.queued_at >= queued.created_at
