from __future__ import annotations

from service.context import Context
from service.controller.fitting import report_unfit_jobs
from service.jobs import repository
from service.queue.memory import MemoryJobQueue
from service.tables.jobs import JobState
from service.workers import repository as workers
from service.workers.capacity import Capacity
from tests.service.controller.conftest import MakeJob


def messages(context: Context, job_id: str) -> list[str]:
    with context.db.read() as session:
        return [event.message for event in repository.events_since(session, job_id, 0)]


def test_a_job_that_no_worker_can_run_says_so_once(context: Context, queue: MemoryJobQueue, make_job: MakeJob) -> None:
    job_id = make_job(state=JobState.QUEUED, resources={"gpus": 1, "labels": ["a"]})
    plain = make_job(state=JobState.QUEUED)
    assert report_unfit_jobs(context, queue) == 0  # no worker lives: that is for the operator to know, not an event
    with context.db.write() as session:
        workers.report_worker(session, "w.1", name="w-1", capacity=Capacity())
        workers.report_worker(session, "w.2", name="w-2", capacity=Capacity(gpus=1))
    for _ in range(2):
        assert report_unfit_jobs(context, queue) == 1
    assert messages(context, job_id) == [
        "No running worker can run this job: w-1 has no GPU; w-2 has no label a. It waits for one that can"
    ]
    assert messages(context, plain) == []
    with context.db.write() as session:
        workers.report_worker(session, "w.3", name="w-3", capacity=Capacity(gpus=1, labels=frozenset("a")))
    assert report_unfit_jobs(context, queue) == 0
