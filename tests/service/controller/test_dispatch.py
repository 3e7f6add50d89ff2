from __future__ import annotations

from collections.abc import Iterator

import pytest

from service.context import Context
from service.controller.dispatch import dispatch_jobs, refill_queue
from service.jobs import lifecycle
from service.kit import ids, outbox
from service.queue.base import QueueUnavailable
from service.queue.embedded import EmbeddedValkey
from service.queue.memory import MemoryJobQueue
from service.queue.rq import RqJobQueue, connect_redis
from service.tables.jobs import JobState
from tests.fixtures.valkey import run_valkey
from tests.service.controller.conftest import MakeJob


@pytest.fixture(scope="module")
def valkey() -> Iterator[EmbeddedValkey]:
    with run_valkey() as server:
        yield server


def queue_up(context: Context, *job_ids: str) -> None:
    with context.db.write() as session:
        for job_id in job_ids:
            assert lifecycle.queue_up(session, job_id)


def test_ids_are_pushed_in_order_and_once(context: Context, queue: MemoryJobQueue, make_job: MakeJob) -> None:
    jobs = [make_job(), make_job()]
    queue_up(context, *jobs)
    assert dispatch_jobs(context, queue) == 2
    assert dispatch_jobs(context, queue) == 0
    assert [queue.pop(), queue.pop(), queue.pop()] == [*jobs, None]


def test_what_could_not_be_pushed_waits_in_the_outbox(context: Context, make_job: MakeJob) -> None:
    job_id = make_job()
    queue_up(context, job_id)

    class Away(MemoryJobQueue):
        def push(self, job_id: str) -> None:
            raise QueueUnavailable("The queue is away.")

    with pytest.raises(QueueUnavailable):
        dispatch_jobs(context, Away())
    with context.db.read() as session:
        assert len(outbox.fetch_due_effects(session, outbox.Topic.ENQUEUE_JOB)) == 1
    back = MemoryJobQueue()
    dispatch_jobs(context, back)
    assert back.waiting_ids() == {job_id}


def test_refill_sends_only_what_is_queued_and_does_not_wait(
    context: Context, queue: MemoryJobQueue, make_job: MakeJob
) -> None:
    queued = [make_job(state=JobState.QUEUED), make_job(state=JobState.QUEUED)]
    for state in JobState:
        if state != JobState.QUEUED:
            make_job(state=state)
    queue.push(queued[0])
    assert refill_queue(context, queue) == 1
    assert refill_queue(context, queue) == 0
    assert queue.waiting_ids() == set(queued)


@pytest.mark.integration
def test_an_emptied_valkey_is_filled_again(context: Context, make_job: MakeJob, valkey: EmbeddedValkey) -> None:
    jobs = {make_job(id=ids.new_id(ids.JOB)) for _ in range(3)}
    queue_up(context, *jobs)
    queue = RqJobQueue(valkey.url)
    dispatch_jobs(context, queue)
    assert queue.waiting_ids() == jobs
    client = connect_redis(valkey.url, retries=0)
    client.flushall()
    assert queue.waiting_ids() == set()
    assert dispatch_jobs(context, queue) == 0
    assert refill_queue(context, queue) == 3
    assert queue.waiting_ids() == jobs
    client.close()
    queue.close()
