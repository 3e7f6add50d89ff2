"""Workers obey the limits of the settings and those of the project."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from service.controller.holding import hold_jobs
from service.jobs import lifecycle
from service.limits import repository, service
from service.limits.schemas import LimitsUpdate
from service.limits.values import QuotaLimits
from service.queue.memory import MemoryJobQueue
from service.tables.jobs import JobState
from tests.service.worker.world import PROJECT, World

pytestmark = pytest.mark.integration


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path, quota_running_jobs=0)
    yield world
    world.close()


def test_a_worker_takes_no_job_beyond_the_setting(world: World) -> None:
    job_id = world.job()
    world.run(job_id)
    assert (world.row(job_id).state, world.row(job_id).held_by) == (JobState.QUEUED, "running_jobs")
    with world.db.write() as session:
        service.change_limits(session, PROJECT, LimitsUpdate(running_jobs=1))
    assert hold_jobs(world.context, MemoryJobQueue()) == 1
    world.run(job_id)
    assert world.row(job_id).state == JobState.SUCCEEDED


def test_what_a_job_leaves_and_how_long_it_ran_is_counted(world: World) -> None:
    with world.db.write() as session:
        service.change_limits(session, PROJECT, LimitsUpdate(running_jobs=None))
    job_id = world.job()
    with world.db.read() as session:
        before = service.usage_of(session, PROJECT)
    world.run(job_id)
    with world.db.read() as session:
        after = service.usage_of(session, PROJECT)
        begin, _ = repository.current_month(session)
        assert 0 < repository.training_seconds(session, PROJECT, begin) < 120
    # The manifests of results and the files of the last one that are artifacts as well lie beside what is counted.
    kept = sum(blob.bytes for blob in world.storage.list(f"jobs/{job_id}"))
    assert 0.5 * kept < after.stored_bytes - before.stored_bytes <= 1.5 * kept
    assert service.remaining_bytes(session, QuotaLimits(stored_bytes=after.stored_bytes + 5), PROJECT) == 5
    with world.db.write() as session:
        assert lifecycle.start_job(session, job_id, owner="w", lease_seconds=1) is None
