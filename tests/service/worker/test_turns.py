"""Whose turn it is: priorities and resources on real worker processes and a real Valkey."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from service.controller.dispatch import dispatch_jobs, refill_queue
from service.jobs.queueing import explain_jobs
from service.jobs.states import TERMINAL
from service.queue.embedded import EmbeddedValkey
from service.queue.rq import RqJobQueue
from service.worker.presence import WorkerPresence
from service.worker.run import WorkerRuntime, run_job
from service.workers.capacity import GB, Capacity
from tests.fixtures.valkey import run_valkey
from tests.service.worker.test_process import worker
from tests.service.worker.world import World, eventually, prepare_command, trainer_command

GPU = {"gpus": 1, "gpu_memory_gb": None, "labels": []}


@pytest.fixture
def valkey() -> Iterator[EmbeddedValkey]:
    with run_valkey() as server:
        yield server


def in_order_of_start(world: World, *job_ids: str) -> list[str]:
    return sorted(job_ids, key=lambda job_id: world.row(job_id).started_at or 0.0)


@pytest.mark.integration
def test_a_higher_priority_starts_first_though_others_were_sent_before(world: World, valkey: EmbeddedValkey) -> None:
    queue = RqJobQueue(valkey.url)
    low, normal, second = world.job(priority=-10), world.job(), world.job()
    assert dispatch_jobs(world.context, queue) == 3  # these ids lie in Valkey now
    high = world.job(priority=10)
    dispatch_jobs(world.context, queue)
    with worker(world, valkey):
        eventually(lambda: all(world.row(job_id).state in TERMINAL for job_id in (low, normal, second, high)))
    assert in_order_of_start(world, low, normal, second, high) == [high, normal, second, low]
    eventually(lambda: queue.waiting_ids() == set())
    queue.close()


@pytest.mark.integration
def test_a_job_waits_for_a_worker_with_its_resources(
    world: World, valkey: EmbeddedValkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue = RqJobQueue(valkey.url)
    monkeypatch.setenv("BURNISH_WORKER_LABELS", "plain")
    with worker(world, valkey, name="plain"):
        demanding = world.job(priority=100, resources={**GPU, "labels": ["zone=eu"]})
        ordinary = world.job()
        dispatch_jobs(world.context, queue)
        eventually(lambda: world.row(ordinary).state in TERMINAL)
        eventually(lambda: queue.waiting_ids() == set())
        assert world.row(demanding).state == "queued"
        monkeypatch.setenv("BURNISH_WORKER_LABELS", "fast,zone=eu")
        monkeypatch.setenv("BURNISH_WORKER_GPUS", "1")
        with worker(world, valkey, name="fitting"):

            def refilled() -> bool:
                refill_queue(world.context, queue)
                return world.row(demanding).state in TERMINAL

            eventually(refilled)
    assert world.row(demanding).lease_owner == "fitting"
    queue.close()


def runtime(world: World, **capacity: object) -> WorkerRuntime:
    return WorkerRuntime(
        context=world.context,
        owner="w",
        stop=world.stop,
        trainer_command=trainer_command("succeed"),
        prepare_command=prepare_command(),
        capacity=Capacity(**capacity),  # type: ignore[arg-type]
    )


@pytest.mark.slow
def test_what_does_not_fit_is_passed_over(world: World) -> None:
    large = world.job(resources={**GPU, "gpu_memory_gb": 40.0})
    labelled = world.job(resources={"gpus": None, "labels": ["a", "b"]})
    small = world.job(resources={"gpus": 0, "labels": []})
    run_job(runtime(world, labels=frozenset("a")), large)
    assert [world.row(job_id).state for job_id in (large, labelled, small)] == ["queued", "queued", "succeeded"]
    run_job(runtime(world, gpus=1, gpu_memory=int(39.9 * GB)), large)
    run_job(runtime(world, gpus=1), large)
    assert world.row(large).state == "queued"
    run_job(runtime(world, gpus=1, gpu_memory=40 * GB), large)
    run_job(runtime(world, labels=frozenset("abc")), large)
    assert [world.row(job_id).state for job_id in (large, labelled)] == ["succeeded", "succeeded"]


def reasons(world: World, *job_ids: str) -> list[tuple[str, int | None]]:
    with world.db.read() as session:
        found = explain_jobs(session, world.settings, [world.row(job_id) for job_id in job_ids])
    return [(why.reason, why.position) for why in (found[job_id] for job_id in job_ids) if why]


def test_a_job_says_why_it_waits(world: World) -> None:
    first, wanted = world.job(), world.job(resources={**GPU, "labels": ["zone=cn"]})
    urgent, child = world.job(priority=5), world.job(start_job=first, waits_for=first)
    assert reasons(world, first, wanted, urgent) == [("no_worker", 2), ("no_worker", 3), ("no_worker", 1)]
    with WorkerPresence(world.context, name="预", capacity=Capacity()):
        eventually(lambda: reasons(world, first) == [("workers_busy", 2)])
        assert reasons(world, wanted, child) == [("no_fitting_worker", 3), ("waits_for_jobs", None)]
    assert reasons(world, first) == [("no_worker", 2)]
