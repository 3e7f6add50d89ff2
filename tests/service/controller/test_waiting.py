from __future__ import annotations

from collections.abc import Callable

from service.context import Context
from service.controller.dispatch import dispatch_jobs, refill_queue
from service.controller.validation import validate_jobs
from service.controller.waiting import release_waiting
from service.jobs import lifecycle, repository
from service.jobs.lifecycle import JobFailureReason
from service.queue.memory import MemoryJobQueue
from service.tables.jobs import JobRow, JobState
from tests.service.controller.conftest import MakeFile, MakeJob

JobOf = Callable[[str], JobRow]


def messages(context: Context, job_id: str) -> list[str]:
    with context.db.read() as session:
        return [event.message for event in repository.events_since(session, job_id, 0)]


def set_state(context: Context, job_id: str, state: JobState) -> None:
    with context.db.write() as session:
        job = repository.by_id(session, job_id)
        assert job is not None
        job.state = state


def test_a_job_is_queued_once_all_that_it_waits_for_have_succeeded(
    context: Context, queue: MemoryJobQueue, make_file: MakeFile, make_job: MakeJob, job_of: JobOf
) -> None:
    parents = [make_job(state=JobState.RUNNING) for _ in range(2)]
    child = make_job(make_file(), waits_for=" ".join(parents), start_job=parents[0], reward_job=parents[1])
    validate_jobs(context, queue)
    assert job_of(child).state == JobState.QUEUED
    assert messages(context, child)[-1] == f"Waiting for {parents[0]} and {parents[1]} to succeed"
    release_waiting(context, queue)
    dispatch_jobs(context, queue)
    refill_queue(context, queue)
    assert queue.waiting_ids() == frozenset()
    with context.db.write() as session:
        assert lifecycle.start_job(session, child, owner="w", lease_seconds=5) is None
    set_state(context, parents[1], JobState.SUCCEEDED)
    assert release_waiting(context, queue) == 0
    assert job_of(child).waits_for == parents[0]
    set_state(context, parents[0], JobState.SUCCEEDED)
    assert release_waiting(context, queue) == 1
    assert job_of(child).waits_for is None
    dispatch_jobs(context, queue)
    assert queue.waiting_ids() == {child}
    with context.db.write() as session:
        assert lifecycle.start_job(session, child, owner="w", lease_seconds=5) is not None


def test_the_failure_of_a_parent_ends_the_whole_chain(
    context: Context, queue: MemoryJobQueue, make_job: MakeJob, job_of: JobOf
) -> None:
    parent = make_job(state=JobState.RUNNING)
    child = make_job(state=JobState.QUEUED, waits_for=parent, start_job=parent)
    grandchild = make_job(state=JobState.QUEUED, waits_for=child, start_job=child)
    with context.db.write() as session:
        lifecycle.fail_job(session, parent, JobFailureReason("out_of_memory", "显存不足: 请减小 batch_size"))
    assert release_waiting(context, queue) + release_waiting(context, queue) == 2
    for job_id, above, reason in ((child, parent, "显存不足"), (grandchild, child, parent)):
        job = job_of(job_id)
        assert job.state == JobState.FAILED
        assert job.error is not None
        assert (job.error["code"], job.error["param"]) == ("parent_failed", "model")
        assert above in job.error["message"]
        assert reason in job.error["message"]


def test_a_cancelled_reward_job_ends_the_job_that_uses_it(
    context: Context, queue: MemoryJobQueue, make_job: MakeJob, job_of: JobOf
) -> None:
    reward = make_job(state=JobState.QUEUED)
    child = make_job(state=JobState.QUEUED, method="ppo", waits_for=reward, reward_job=reward)
    with context.db.write() as session:
        lifecycle.cancel_job(session, reward)
    assert release_waiting(context, queue) == 1
    error = job_of(child).error
    assert error is not None
    assert error["param"] == "method.ppo.hyperparameters.reward.model"
    assert "was cancelled" in error["message"]


def test_a_waiting_job_can_be_cancelled(
    context: Context, queue: MemoryJobQueue, make_job: MakeJob, job_of: JobOf
) -> None:
    parent = make_job(state=JobState.SUCCEEDED)
    child = make_job(state=JobState.QUEUED, waits_for=parent)
    with context.db.write() as session:
        assert lifecycle.cancel_job(session, child)
    assert release_waiting(context, queue) == 0
    assert job_of(child).state == JobState.CANCELLED
