from __future__ import annotations

from collections.abc import Callable

import pytest

from service.context import Context
from service.controller import leases
from service.controller.leases import end_expired_leases
from service.jobs import lifecycle, repository
from service.kit import outbox
from service.queue.memory import MemoryJobQueue
from service.tables.jobs import JobRow, JobState
from tests.service.controller.conftest import MakeJob

ReadJob = Callable[[str], JobRow]


def claim(context: Context, job_id: str, lease_seconds: float) -> int:
    with context.db.write() as session:
        job = lifecycle.start_job(session, job_id, owner="worker-1", lease_seconds=lease_seconds)
        assert job is not None
        return job.lease_token


def test_a_stopped_worker_loses_its_job_until_the_third_failure(
    context: Context, queue: MemoryJobQueue, make_job: MakeJob, job_of: ReadJob
) -> None:
    job_id = make_job(state=JobState.QUEUED)
    for failures in (1, 2):
        claim(context, job_id, -1)
        assert end_expired_leases(context, queue) == 1
        job = job_of(job_id)
        assert (job.state, job.crashes, job.failures, job.lease_expires_at) == (JobState.QUEUED, failures, 0, None)
        with context.db.read() as session:
            assert len(outbox.fetch_due_effects(session, outbox.Topic.ENQUEUE_JOB)) == failures
    claim(context, job_id, -1)
    end_expired_leases(context, queue)
    job = job_of(job_id)
    assert (job.state, job.crashes) == (JobState.FAILED, 3)
    message = "the worker stopped answering, 3 times in a row without the job getting any further."
    assert job.error == {"code": "worker_lost", "message": message, "param": None}
    with context.db.read() as session:
        (webhook,) = outbox.fetch_due_effects(session, outbox.Topic.TELL_WEBHOOKS)
    assert webhook.payload["type"] == "fine_tuning.job.failed"
    assert end_expired_leases(context, queue) == 0


def test_a_lease_in_time_is_left_alone(
    context: Context, queue: MemoryJobQueue, make_job: MakeJob, job_of: ReadJob
) -> None:
    job_id = make_job(state=JobState.QUEUED)
    claim(context, job_id, 60)
    assert end_expired_leases(context, queue) == 0
    assert job_of(job_id).state == JobState.RUNNING


def test_a_lease_renewed_after_the_list_was_read_is_kept(
    context: Context,
    queue: MemoryJobQueue,
    make_job: MakeJob,
    job_of: ReadJob,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    renewed, lost = make_job(state=JobState.QUEUED), make_job(state=JobState.QUEUED)
    token = claim(context, renewed, -1)
    claim(context, lost, -1)
    end = leases._end_lease

    def renew_first(context: Context, job_id: str) -> bool:
        if job_id == renewed:
            with context.db.write() as session:
                assert repository.renew_lease(session, renewed, token, lease_seconds=60)
        return end(context, job_id)

    monkeypatch.setattr(leases, "_end_lease", renew_first)
    assert end_expired_leases(context, queue) == 1
    assert (job_of(renewed).state, job_of(lost).state) == (JobState.RUNNING, JobState.QUEUED)


def test_the_old_worker_can_write_no_more(context: Context, queue: MemoryJobQueue, make_job: MakeJob) -> None:
    job_id = make_job(state=JobState.QUEUED)
    token = claim(context, job_id, -1)
    end_expired_leases(context, queue)
    with context.db.write() as session:
        assert not repository.renew_lease(session, job_id, token, lease_seconds=60)
