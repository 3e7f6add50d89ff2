"""One call in a hundred to SQL, S3 and Valkey fails: before what it asked for was done, or after."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.errors import counted
from tests.faults.invariants import check
from tests.faults.report import Report
from tests.faults.scale import PATIENCE, new_seed, scaled
from tests.faults.world import QUICK, Servers, running_world

pytestmark = [pytest.mark.faults, pytest.mark.timeout(PATIENCE)]

PACE = QUICK | {"heartbeat_seconds": "1", "lease_seconds": "10"}


def test_calls_that_fail_at_random_lose_no_job(tmp_path: Path, cluster_servers: Servers, report: Report) -> None:
    seed, jobs, record = new_seed(), scaled(10, 200), tmp_path / "errors"
    options = {"error_rate": 0.01, "seed": seed, "error_record": record}
    with running_world(
        tmp_path, cluster_servers, workers=3, pace=PACE, step_seconds=0.01, options=options, max_failures="20"
    ) as world:
        job_ids = world.submit(jobs, steps=4)
        recovered = world.wait(job_ids, seconds=PATIENCE / 2)
        ended = check(world)
        restarts = {role: process.restarts for role, process in world.processes.items() if process.restarts}
    assert ended == {"succeeded": jobs}
    failed = counted(record)
    assert failed.total() > jobs / 4, failed
    report.add(
        "1% errors on each SQL, S3, Valkey call, «done but error» included",
        f"{jobs} jobs; {', '.join(f'{what}: {count}' for what, count in sorted(failed.items()))}; "
        f"processes that ended and were started again: {restarts or 'none'}",
        outcome=f"{ended['succeeded']} succeeded, no unhandled 500",
        seed=seed,
        recovery=recovered,
    )
