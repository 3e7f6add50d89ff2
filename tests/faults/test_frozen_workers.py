"""Workers that are stopped by SIGSTOP past their leases, at every stage of an attempt, and wake up too late."""

from __future__ import annotations

import random
import signal
import time
from pathlib import Path

import pytest

from service.jobs.states import TERMINAL
from tests.faults.invariants import check
from tests.faults.report import Report
from tests.faults.scale import PATIENCE, new_seed, scaled, wait_until
from tests.faults.world import QUICK, Servers, World, running_jobs, running_world
from tests.fixtures.supervised import ServiceProcess

pytestmark = [pytest.mark.faults, pytest.mark.timeout(PATIENCE)]

PACE = QUICK | {"lease_seconds": "2"}


def test_a_frozen_worker_writes_nothing_once_another_has_its_job(
    tmp_path: Path, cluster_servers: Servers, report: Report
) -> None:
    races, seed = scaled(2, 50), new_seed()
    chance = random.Random(seed)
    with running_world(tmp_path, cluster_servers, workers=3, pace=PACE, max_failures="100") as world:
        job_ids: list[str] = []
        for race in range(races):
            # The longer the pause, the later the stage: before its first step, amid them, while it publishes.
            job_ids += world.submit(2, steps=8)
            _race(world, chance, job_ids, wakes_last=race % 2 == 0)
        world.wait(job_ids)
        ended = check(world)
        told = sum(worker.log.read_text().count("Stopped: ") for worker in world.workers)
    assert ended == {"succeeded": len(world.submitted)}
    assert told >= races
    report.add(
        "a worker frozen (SIGSTOP) past its lease",
        f"PostgreSQL, S3, 3 workers; {races} races",
        outcome=f"{told} times a worker found its job taken and wrote nothing; one artifact set each",
        seed=seed,
    )


def _race(world: World, chance: random.Random, job_ids: list[str], *, wakes_last: bool) -> None:
    """Freeze a worker at some moment of a job until another has the job, or until that has even ended it."""
    while True:
        frozen, job_id = _freeze_one(world, chance, job_ids)
        attempt = world.job(job_id).lease_token
        what = f"another attempt\n{world.log()}"
        wait_until(lambda: _is_over(world, job_id, attempt), what=what)  # noqa: B023 - called at once
        if world.job(job_id).lease_token > attempt:
            break
        frozen.send(signal.SIGCONT)  # its last word was on its way already
        job_ids += world.submit(2, steps=8)
    if wakes_last:
        wait_until(lambda: world.job(job_id).state in TERMINAL, what=f"the end of the job\n{world.log()}")
    frozen.send(signal.SIGCONT)


def _is_over(world: World, job_id: str, attempt: int) -> bool:
    job = world.job(job_id)
    return job.lease_token > attempt or job.state in TERMINAL


def _freeze_one(world: World, chance: random.Random, job_ids: list[str]) -> tuple[ServiceProcess, str]:
    """Stop a worker in the middle of a job, which it still holds then; submit more where all have ended meanwhile."""
    while True:
        wait_until(lambda: running_jobs(world) or _all_over(world, job_ids), what=f"a running job\n{world.log()}")
        running = running_jobs(world)
        if not running:
            job_ids.extend(world.submit(2, steps=8))
            continue
        owner = chance.choice(sorted(running))
        time.sleep(chance.uniform(0, 1.0))
        worker = world.processes[owner]
        worker.send(signal.SIGSTOP)
        job_id = running_jobs(world).get(owner)
        if job_id is not None:
            return worker, job_id
        worker.send(signal.SIGCONT)


def _all_over(world: World, job_ids: list[str]) -> bool:
    return all(world.job(job_id).state in TERMINAL for job_id in job_ids)
