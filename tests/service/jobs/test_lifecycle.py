from __future__ import annotations

from collections.abc import Generator
from pathlib import Path

import pytest
from sqlalchemy import select

from service.context import Context
from service.jobs import lifecycle, repository
from service.jobs.errors import StaleLease
from service.jobs.lifecycle import JobFailureReason, PublishedFile
from service.keys.service import create_key
from service.kit import ids, outbox
from service.kit.outbox import OutboxRow
from service.tables.jobs import JobArtifactRow, JobRow, JobState
from tests.fixtures.service import make_context

FILE = PublishedFile("report.json", "report.json", "application/json", "jobs/x/report.json", 2, "0" * 64)


@pytest.fixture
def context(tmp_path: Path) -> Generator[Context, None, None]:
    made = make_context(tmp_path)
    yield made
    made.db.close()


@pytest.fixture
def job_id(context: Context) -> str:
    with context.db.write() as session:
        project = create_key(session, context.hmac_key, project="p", name="n")[0].project_id
        job = JobRow(
            id=ids.new_id(ids.JOB),
            project_id=project,
            state=JobState.VALIDATING,
            model="tiny",
            base="tiny",
            model_name="ft:tiny:burnish:客服:x",
            method={"type": "supervised", "supervised": {"hyperparameters": {}}},
            training_file="file-x",
            seed=1,
        )
        session.add(job)
        return job.id


def claimed(context: Context, job_id: str) -> JobRow:
    with context.db.write() as session:
        lifecycle.queue_up(session, job_id)
        job = lifecycle.start_job(session, job_id, owner="w", lease_seconds=60)
    assert job is not None
    return job


def state_of(context: Context, job_id: str) -> str:
    with context.db.read() as session:
        job = repository.by_id(session, job_id)
        assert job is not None
        return job.state


def succeed(context: Context, job: JobRow, token: int) -> str:
    with context.db.write() as session:
        return lifecycle.complete_job(
            session,
            job,
            token=token,
            trained_tokens=5,
            kind="adapter",
            manifest_sha256="0" * 64,
            blob_prefix="jobs/x",
            result_csv=FILE,
            artifacts=[FILE],
        )


def test_a_job_is_claimed_once(context: Context, job_id: str) -> None:
    job = claimed(context, job_id)
    assert (job.state, job.lease_token) == (JobState.RUNNING, 1)
    with context.db.write() as session:
        assert lifecycle.start_job(session, job_id, owner="other", lease_seconds=60) is None


def test_a_stale_token_writes_nothing(context: Context, job_id: str) -> None:
    first = claimed(context, job_id)
    with context.db.write() as session:
        lifecycle.retry_or_fail_job(session, first, token=1, error=JobFailureReason("lost", "gone"), max_failures=3)
    second = claimed(context, job_id)
    assert second.lease_token == 2
    with pytest.raises(StaleLease):
        succeed(context, first, 1)
    for end in (
        lambda s: lifecycle.fail_job(s, job_id, JobFailureReason("x", "y"), token=1),
        lambda s: lifecycle.requeue_job(s, job_id, 1, reason="x"),
        lambda s: lifecycle.retry_or_fail_job(s, first, token=1, error=JobFailureReason("x", "y"), max_failures=3),
    ):
        with pytest.raises(StaleLease), context.db.write() as session:
            end(session)
    with context.db.write() as session:
        assert not repository.renew_lease(session, job_id, 1, lease_seconds=60)
        assert session.scalars(select(JobArtifactRow)).all() == []
    assert state_of(context, job_id) == JobState.RUNNING
    assert succeed(context, second, 2) == "ft:tiny:burnish:客服:x"
    assert state_of(context, job_id) == JobState.SUCCEEDED


def test_a_cancelled_job_cannot_succeed(context: Context, job_id: str) -> None:
    job = claimed(context, job_id)
    with context.db.write() as session:
        assert lifecycle.cancel_job(session, job_id)
        assert not lifecycle.cancel_job(session, job_id)
    with pytest.raises(StaleLease):
        succeed(context, job, 1)
    assert state_of(context, job_id) == JobState.CANCELLED


def test_the_third_failure_is_the_last(context: Context, job_id: str) -> None:
    for attempt in (1, 2, 3):
        job = claimed(context, job_id)
        with context.db.write() as session:
            lifecycle.retry_or_fail_job(
                session, job, token=attempt, error=JobFailureReason("c", "坏了"), max_failures=3
            )
        assert state_of(context, job_id) == (JobState.FAILED if attempt == 3 else JobState.QUEUED)
    with context.db.read() as session:
        failed = repository.by_id(session, job_id)
        assert failed is not None
        assert failed.error == {"code": "c", "message": "坏了", "param": None}


def test_a_preemption_is_not_a_failure(context: Context, job_id: str) -> None:
    for attempt in range(1, 6):
        claimed(context, job_id)
        with context.db.write() as session:
            lifecycle.requeue_job(session, job_id, attempt, reason="the worker is stopping")
    with context.db.read() as session:
        job = repository.by_id(session, job_id)
        assert job is not None
        assert (job.state, job.failures, job.preemptions) == (JobState.QUEUED, 0, 5)


def test_each_end_queues_one_webhook(context: Context, job_id: str) -> None:
    succeed(context, claimed(context, job_id), 1)
    with context.db.read() as session:
        rows = session.scalars(select(OutboxRow).where(OutboxRow.topic == outbox.Topic.TELL_WEBHOOKS)).all()
        assert [row.payload["type"] for row in rows] == ["fine_tuning.job.succeeded"]
        assert [row.payload["object_id"] for row in rows] == [job_id]


def test_an_expired_lease_shows_by_the_databases_clock(context: Context, job_id: str) -> None:
    claimed(context, job_id)
    with context.db.write() as session:
        assert repository.with_expired_lease(session) == []
        assert repository.renew_lease(session, job_id, 1, lease_seconds=-1)
        assert [job.id for job in repository.with_expired_lease(session)] == [job_id]


def flag_of(context: Context, job_id: str) -> bool:
    with context.db.read() as session:
        job = repository.by_id(session, job_id)
        assert job is not None
        return job.pause_requested


def test_a_job_that_is_paused_while_it_is_validated_never_starts(context: Context, job_id: str) -> None:
    with context.db.write() as session:
        assert lifecycle.pause_job(session, job_id)
        assert lifecycle.queue_up(session, job_id)
    assert (state_of(context, job_id), flag_of(context, job_id)) == (JobState.PAUSED, False)
    with context.db.write() as session:
        assert lifecycle.start_job(session, job_id, owner="w", lease_seconds=60) is None
        assert lifecycle.resume_job(session, job_id)
        assert not lifecycle.resume_job(session, job_id)
        assert lifecycle.start_job(session, job_id, owner="w", lease_seconds=60) is not None


@pytest.mark.parametrize("how", ["stand_still", "give_back", "failure"])
def test_however_an_attempt_ends_a_wanted_pause_comes(context: Context, job_id: str, how: str) -> None:
    job = claimed(context, job_id)
    with context.db.write() as session:
        assert lifecycle.pause_job(session, job_id)
        assert lifecycle.pause_job(session, job_id)
    assert (state_of(context, job_id), flag_of(context, job_id)) == (JobState.RUNNING, True)
    with context.db.write() as session:
        match how:
            case "stand_still":
                lifecycle.complete_pause(session, job_id, 1)
            case "give_back":
                lifecycle.requeue_job(session, job_id, 1, reason="x")
            case _:
                lifecycle.retry_or_fail_job(session, job, token=1, error=JobFailureReason("c", "x"), max_failures=3)
    assert (state_of(context, job_id), flag_of(context, job_id)) == (JobState.PAUSED, False)
    with context.db.read() as session:
        messages = [event.message for event in repository.events_since(session, job_id, 0)]
    assert messages.count("Pausing the job") == 1
    assert messages[-1] == "The job is paused; resume it to continue"


def test_a_pause_taken_back_in_time_changes_nothing(context: Context, job_id: str) -> None:
    claimed(context, job_id)
    with context.db.write() as session:
        assert lifecycle.pause_job(session, job_id)
        assert lifecycle.resume_job(session, job_id)
        lifecycle.complete_pause(session, job_id, 1)  # its trainer was being stopped already
    assert state_of(context, job_id) == JobState.QUEUED


def test_a_paused_job_that_waits_for_another_still_waits_when_resumed(context: Context, job_id: str) -> None:
    with context.db.write() as session:
        lifecycle.queue_up(session, job_id)
        repository.wait_for(session, job_id, ["ftjob-parent"])
        assert lifecycle.pause_job(session, job_id)
        assert lifecycle.resume_job(session, job_id)
        assert [job.id for job in repository.waiting_jobs(session)] == [job_id]
        assert repository.ready_jobs(session) == []


def test_what_has_ended_is_neither_paused_nor_resumed(context: Context, job_id: str) -> None:
    with context.db.write() as session:
        assert lifecycle.cancel_job(session, job_id)
        assert not lifecycle.pause_job(session, job_id)
        assert not lifecycle.resume_job(session, job_id)
