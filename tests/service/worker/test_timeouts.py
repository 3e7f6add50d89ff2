"""Timeouts: a job that has run for as long as it may ends, and what it kept stays."""

from __future__ import annotations

import time
from typing import Any

import pytest
from sqlalchemy import update

from service.controller.leases import end_expired_leases
from service.controller.timeouts import end_overdue
from service.jobs import lifecycle, references, repository
from service.kit.db import db_now
from service.queue.memory import MemoryJobQueue
from service.staging.errors import JobTimedOut
from service.tables.jobs import JobRow, JobState
from service.worker.lease import Lease
from tests.service.worker.world import PROJECT, World


def ran(world: World, job_id: str, seconds: float) -> None:
    """Let a running job have been claimed so long ago."""
    with world.db.write() as session:
        session.execute(update(JobRow).where(JobRow.id == job_id).values(started_at=db_now() - seconds))


def claim(world: World, job_id: str) -> JobRow:
    with world.db.write() as session:
        job = lifecycle.start_job(session, job_id, owner="w", lease_seconds=1000)
        assert job is not None
        return job


@pytest.mark.slow
def test_the_worker_ends_the_job_and_keeps_a_last_checkpoint(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    job_id = world.job(timeout_seconds=3600)
    # The hour is over when the second step is done.
    monkeypatch.setattr(Lease, "timed_out", property(lambda _: world.has_step(job_id, 2)))
    world.run(job_id, "wait")  # trains until it is asked to stop
    job = world.row(job_id)
    assert (job.state, (job.error or {})["code"], (job.error or {})["param"]) == ("failed", "timeout", "timeout")
    assert (job.error or {})[
        "message"
    ] == "The job ran for its timeout of 3600 seconds; its checkpoint at step 3 is kept."
    assert job.failures == 0
    with world.db.read() as session:
        start = references.find_result(session, PROJECT, f"{job.model_name}:ckpt-step-3", param="model")
        stored = references.locate_result(session, start.job.id, start.step)
    assert stored is not None
    assert world.blobs(stored.prefix)


def test_the_clock_begins_at_the_claim(world: World) -> None:
    def lease(time_left: float | None) -> Lease:
        since = time.monotonic() - 5
        more: dict[str, Any] = {"job_id": "ftjob-x", "token": 1, "stop": world.stop, "since": since}
        return Lease(world.db, world.settings, time_left=time_left, **more)

    assert lease(4.9).timed_out
    with pytest.raises(JobTimedOut):
        lease(4.9).check_all()
    assert not lease(3600).timed_out
    assert not lease(None).timed_out


def test_attempts_are_added_up(world: World) -> None:
    job_id = world.job(timeout_seconds=100)
    job = claim(world, job_id)
    ran(world, job_id, 60)
    with world.db.write() as session:
        lifecycle.requeue_job(session, job_id, job.lease_token, reason="a test")
    assert 60 <= world.row(job_id).running_seconds < 90
    assert world.row(job_id).state == JobState.QUEUED
    job = claim(world, job_id)
    ran(world, job_id, 41)
    with world.db.write() as session:
        lifecycle.requeue_job(session, job_id, job.lease_token, reason="a test")
    assert (world.row(job_id).error or {})["code"] == "timeout"


def test_a_dead_workers_time_counts_until_its_lease_expired(world: World) -> None:
    job_id = world.job(timeout_seconds=100)
    claim(world, job_id)
    ran(world, job_id, 1000)
    with world.db.write() as session:
        expired = db_now() - 1000 + 99
        session.execute(update(JobRow).where(JobRow.id == job_id).values(lease_expires_at=expired))
    assert end_expired_leases(world.context, MemoryJobQueue()) == 1
    job = world.row(job_id)
    assert (job.state, round(job.running_seconds)) == ("queued", 99)
    claim(world, job_id)
    ran(world, job_id, 1000)
    with world.db.write() as session:
        session.execute(update(JobRow).where(JobRow.id == job_id).values(lease_expires_at=db_now() - 998))
    end_expired_leases(world.context, MemoryJobQueue())
    assert (world.row(job_id).error or {})["code"] == "timeout"


def test_the_controller_ends_what_a_worker_does_not(world: World) -> None:
    job_id, other = world.job(timeout_seconds=10), world.job()
    claim(world, job_id)
    claim(world, other)
    grace = world.settings.stop_seconds + world.settings.lease_seconds
    ran(world, job_id, 10 + grace - 3)
    ran(world, other, 10**6)
    assert end_overdue(world.context, MemoryJobQueue()) == 0
    ran(world, job_id, 10 + grace + 1)
    assert end_overdue(world.context, MemoryJobQueue()) == 1
    assert (world.row(job_id).error or {})["code"] == "timeout"
    assert world.row(other).state == JobState.RUNNING


@pytest.mark.slow
def test_waiting_does_not_count(world: World) -> None:
    job_id = world.job(timeout_seconds=600, created_at=1e9)
    with world.db.read() as session:
        assert not repository.is_out_of_time(session, job_id)
    world.run(job_id)
    assert world.row(job_id).state == JobState.SUCCEEDED
