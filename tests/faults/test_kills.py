"""kill -9 at random of API, controller, workers and trainers, while jobs are created and run."""

from __future__ import annotations

import random
import time
from pathlib import Path
from typing import Any

import pytest

from tests.faults.chaos import Killer
from tests.faults.invariants import check
from tests.faults.report import Report
from tests.faults.scale import FULL, PATIENCE, new_seed, scaled, wait_until
from tests.faults.world import Servers, running_world
from tests.fixtures.processes import jsonl, rows, running_server
from tests.fixtures.service import write_catalog

pytestmark = [pytest.mark.faults, pytest.mark.timeout(PATIENCE)]


@pytest.mark.parametrize("database", ["PostgreSQL", "SQLite"] if FULL else ["PostgreSQL"])
def test_kills_at_random_lose_no_job(
    database: str, tmp_path: Path, request: pytest.FixtureRequest, report: Report
) -> None:
    servers = request.getfixturevalue("cluster_servers") if database == "PostgreSQL" else Servers()
    seed, jobs = new_seed(), scaled(6, 100)
    # A job that is killed as often as this one may be is no poison: it must end well.
    with running_world(tmp_path, servers, max_failures="50") as world:
        job_ids = world.submit(jobs // 2, steps=20)
        with Killer(world, seed=seed, times=jobs, longest=scaled(4, 12) / 10) as killer:
            job_ids += world.submit(jobs - len(job_ids), steps=20)
        world.wait(job_ids, seconds=PATIENCE / 2)
        recovered = time.monotonic() - killer.last
        ended = check(world)
        attempts = sum(world.job(job_id).lease_token for job_id in job_ids)
    assert ended == {"succeeded": jobs}
    assert attempts > jobs, "no kill met a job that ran"
    killed = ", ".join(f"{role} {count}x" for role, count in sorted(killer.killed.items()))
    report.add(
        "kill -9 at random of API, controller, worker, trainer",
        f"{database}; {jobs} jobs; killed {killed}; {attempts} attempts",
        outcome=f"{ended['succeeded']} succeeded, 0 lost, 0 duplicates",
        seed=seed,
        recovery=recovered,
    )


@pytest.mark.skipif(not FULL, reason="make faults alone: an acceptance test kills a worker of `up`")
def test_kills_at_random_under_up_with_the_real_trainer(tmp_path: Path, tiny_base: Path, report: Report) -> None:
    seed = new_seed()
    chance = random.Random(seed)
    settings = {"BURNISH_CATALOG": str(write_catalog(tmp_path, tiny_base)), "BURNISH_MAX_FAILURES": "50"}
    with running_server(tmp_path / "data", preloaded=False, **settings) as server, server.client() as client:
        file = client.files.create(file=jsonl(rows(40)), filename="训练.jsonl")
        asked: Any = {"n_epochs": 10, "batch_size": 4, "checkpoint_steps": 10, "lora": {"rank": 2, "alpha": 4}}
        create = client.jobs.create
        job_ids = [create(model="tiny", training_file=file.id, hyperparameters=asked).id for _ in range(4)]
        victims = [("api",), ("controller",), ("worker",), ("-m", "trainer")] * 2
        chance.shuffle(victims)
        for words in victims:
            time.sleep(chance.uniform(2, 8))
            for process in wait_until(lambda words=words: server.find(*words), what=f"{words}\n{server.log()}"):
                process.kill()
        began = time.monotonic()
        for job_id in job_ids:
            job = client.jobs.wait(job_id, timeout=PATIENCE / 2, raise_on_failure=False)
            assert job.status == "succeeded", server.log()
            events = client.jobs.events(job_id, limit=1000)
            steps = [event.data["step"] for event in events if event.data and "train_loss" in event.data]
            assert sorted(steps) == list(range(1, 101))
    report.add(
        "kill -9 at random of API, controller, worker, trainer",
        "`burnish-server up` with the real trainer on a tiny model; 4 jobs of 100 steps; each role killed twice",
        outcome="4 succeeded, each step shown once",
        seed=seed,
        recovery=time.monotonic() - began,
    )
