"""Worker processes on a real Valkey: what they take from the queue, and how they end."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from redis import Redis
from rq.job import Job as RqJob

from service.jobs.states import TERMINAL
from service.kit import ids
from service.queue.embedded import EmbeddedValkey
from service.queue.rq import FUNCTION, QUEUE_NAME, RqJobQueue
from service.tables.jobs import JobState
from tests.fixtures.valkey import run_valkey
from tests.service.worker.world import World, eventually

pytestmark = pytest.mark.integration
LIST = f"rq:queue:{QUEUE_NAME}"
REPOSITORY = Path(__file__).parents[3]


@pytest.fixture
def valkey() -> Iterator[EmbeddedValkey]:
    with run_valkey() as server:
        yield server


LISTENS = b"listens on the queue"


@contextmanager
def worker(
    world: World, valkey: EmbeddedValkey, *, name: str = "worker-1", mode: str = "succeed", says: bytes = LISTENS
) -> Iterator[subprocess.Popen[bytes]]:
    environment = dict(os.environ) | {
        "PYTHONPATH": str(REPOSITORY),
        "BURNISH_DATA": str(world.settings.data),
        "BURNISH_REDIS_URL": valkey.url,
        "BURNISH_CATALOG": str(world.settings.catalog),
        "BURNISH_POLL_SECONDS": "0.05",
        "BURNISH_HEARTBEAT_SECONDS": "0.3",
    }
    command = [sys.executable, "-m", "tests.service.worker.worker_process", name, mode]
    log_file = world.settings.data / f"{name}.log"
    with (
        log_file.open("ab") as log,
        subprocess.Popen(command, env=environment, cwd=REPOSITORY, stderr=log) as process,
    ):
        try:
            eventually(lambda: says in log_file.read_bytes())
            yield process
        finally:
            process.kill()


def ended(world: World, job_id: str) -> bool:
    return world.row(job_id).state in TERMINAL


def put_record(redis: Redis, job_id: str, data: bytes, **fields: str) -> None:
    mapping: dict[str, Any] = {"data": data, "created_at": "2026-01-01T00:00:00.000000Z", "origin": QUEUE_NAME}
    redis.hset(RqJob.key_for(job_id), mapping=mapping | fields)
    redis.rpush(LIST, job_id)


class Trap:
    """Leaves a file behind where somebody unpickles it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.system, (f"touch {self.path}",))


def test_foreign_payloads_are_dropped_and_the_worker_continues(world: World, valkey: EmbeddedValkey) -> None:
    sprung = world.settings.data / "sprung"
    touch = f"touch {sprung}"
    with Redis.from_url(valkey.url) as redis:
        calls: list[bytes] = [
            pickle.dumps(("os.system", None, (touch,), {})),
            pickle.dumps(Trap(sprung)),
            json.dumps(["os.system", None, [touch], {}]).encode(),
            json.dumps([FUNCTION, None, ["ftjob-../../etc/passwd"], {}]).encode(),
            json.dumps([FUNCTION, None, [], {}]).encode(),
            json.dumps({"no": "call"}).encode(),
            b"[" * 100_000,
            b"\xff\x00",
        ]
        for data in calls:
            put_record(redis, ids.new_id(ids.JOB), data)
        honest = ids.new_id(ids.JOB)
        call = json.dumps([FUNCTION, None, [honest], {}]).encode()
        put_record(redis, honest, call, success_callback_name="os.abort", webhooks='[{"url": "http://127.0.0.1:1"}]')
        put_record(redis, ids.new_id(ids.JOB), call, created_at="not a time")
        put_record(redis, ids.new_id(ids.JOB), call, status="no status")
        text = ids.new_id(ids.JOB)
        redis.set(RqJob.key_for(text), "no hash")
        redis.rpush(LIST, text, b"\xff\xfe", "some-job", ids.new_id(ids.JOB))

        job_id = world.job()
        RqJobQueue(valkey.url).push(job_id)
        with worker(world, valkey) as process:
            eventually(lambda: ended(world, job_id) and not redis.llen(LIST))
            assert process.poll() is None
        assert world.row(job_id).state == JobState.SUCCEEDED
    assert not sprung.exists()


def test_a_worker_outlives_a_restart_of_the_queue_and_stops_at_sigterm(world: World, valkey: EmbeddedValkey) -> None:
    with worker(world, valkey) as process:
        valkey.stop()
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(3)
        valkey.start()
        job_id = world.job()
        RqJobQueue(valkey.url).push(job_id)
        eventually(lambda: ended(world, job_id))
        assert world.row(job_id).state == JobState.SUCCEEDED
        process.terminate()
        assert process.wait(30) == 0


def test_a_worker_stops_while_the_queue_is_away(world: World, valkey: EmbeddedValkey) -> None:
    with worker(world, valkey) as process:
        valkey.stop()
        process.terminate()
        assert process.wait(30) == 0


def test_a_worker_that_never_found_the_queue_stops_too(world: World, valkey: EmbeddedValkey) -> None:
    valkey.stop()
    with worker(world, valkey, says=b"its queue is at") as process:
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(2)
        process.terminate()
        assert process.wait(30) == 0


def test_sigterm_gives_the_running_job_back_and_another_worker_finishes_it(
    world: World, valkey: EmbeddedValkey
) -> None:
    job_id = world.job()
    RqJobQueue(valkey.url).push(job_id)
    with worker(world, valkey, mode="wait") as process:
        eventually(lambda: world.has_step(job_id, 2))
        process.terminate()
        assert process.wait(30) == 0
    job = world.row(job_id)
    assert (job.state, job.preemptions) == (JobState.QUEUED, 1)
    with worker(world, valkey, name="worker-2"):
        RqJobQueue(valkey.url).push(job_id)
        eventually(lambda: ended(world, job_id))
    assert world.row(job_id).state == JobState.SUCCEEDED
    assert world.row(job_id).lease_owner == "worker-2"


@pytest.mark.faults
def test_a_killed_worker_takes_its_trainer_with_it(world: World, valkey: EmbeddedValkey) -> None:
    job_id = world.job()
    RqJobQueue(valkey.url).push(job_id)
    with worker(world, valkey, mode="wait") as process:
        eventually(lambda: world.has_step(job_id, 2))
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        assert len(children) == 1
        process.kill()
        process.wait()
        eventually(lambda: not Path(f"/proc/{children[0]}").exists())
    left = list(world.settings.work.iterdir())
    assert [path.name for path in left] == [f"{job_id}-1"]
    with worker(world, valkey, name="worker-2"):
        assert list(world.settings.work.iterdir()) == []
