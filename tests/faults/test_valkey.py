"""Valkey is killed, emptied, away; and somebody else writes into it."""

from __future__ import annotations

import json
import os
import pickle
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from redis import Redis
from rq.job import Job as RqJob

from service.kit import ids
from service.queue.rq import FUNCTION, QUEUE_NAME
from tests.faults import ledger
from tests.faults.invariants import check
from tests.faults.report import Report
from tests.faults.scale import FULL, PATIENCE, wait_until
from tests.faults.world import World, running_world

pytestmark = [pytest.mark.faults, pytest.mark.timeout(PATIENCE)]


def test_whatever_happens_to_valkey_no_job_is_lost_and_no_training_restarted(cluster: World, report: Report) -> None:
    outages = (3, 20, 60) if FULL else (3,)
    for name, seconds in (("emptied", 0), ("killed", 0), *(("away", seconds) for seconds in outages)):
        running = cluster.submit(2, steps=20, slowness=max(2, seconds // 2))
        cluster.wait_for_steps(running, 1)
        queued = cluster.submit(2, steps=2)
        _disturb(cluster, name, seconds)
        queued += cluster.submit(1, steps=2)
        recovered = cluster.wait([*running, *queued], seconds=PATIENCE / 2)
        starts = ledger.starts(cluster.entries([*running, *queued]))
        assert set(starts.values()) == {1}, f"Valkey {name} for {seconds} s restarted a training: {starts}"
        report.add(
            "Valkey killed, emptied, away",
            f"{name}{f' for {seconds} s' if seconds else ''}; 2 jobs running, 3 waiting",
            outcome="0 lost, no training restarted",
            recovery=recovered,
        )
    assert check(cluster) == {"succeeded": len(cluster.submitted)}


def _disturb(world: World, name: str, seconds: int) -> None:
    if name == "emptied":
        with Redis.from_url(world.valkey.url) as redis:
            redis.flushall()
        return
    pid = world.valkey.pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    world.valkey.stop()
    time.sleep(seconds)
    world.valkey.start()


class Trap:
    """Leaves a file behind where somebody unpickles it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.system, (f"touch {self.path}",))


def test_nothing_of_what_others_put_into_valkey_is_run(tmp_path: Path, report: Report) -> None:
    sprung = tmp_path / "sprung"
    touch = f"touch {sprung}"
    calls: list[bytes] = [
        pickle.dumps(("os.system", None, (touch,), {})),
        pickle.dumps(Trap(sprung)),
        b"\x80\x04" + pickle.dumps(Trap(sprung))[2:],
        json.dumps(["os.system", None, [touch], {}]).encode(),
        json.dumps(["builtins.eval", None, [f"__import__('os').system({touch!r})"], {}]).encode(),
        json.dumps([FUNCTION, None, ["ftjob-../../etc/passwd"], {}]).encode(),
        json.dumps([FUNCTION, "os", [touch], {}]).encode(),
        json.dumps({"没有": "call"}).encode(),
        b"[" * 100_000,
        b"\xff\x00",
    ]
    with running_world(tmp_path, workers=1) as world, Redis.from_url(world.valkey.url) as redis:
        for data in calls:
            for callback in ("os.abort", f"os.system('{touch}')"):
                _put(redis, ids.new_id(ids.JOB), data, success_callback_name=callback, failure_callback_name=callback)
            _put(redis, f"陌生-{ids.new_id(ids.JOB)}", data)
        honest = ids.new_id(ids.JOB)  # of a job that SQL does not know
        call = json.dumps([FUNCTION, None, [honest], {}]).encode()
        _put(redis, honest, call, success_callback_name="os.abort", webhooks='[{"url": "http://127.0.0.1:1"}]')
        for worker in redis.smembers("rq:workers"):
            name = worker.decode().removeprefix("rq:worker:")
            redis.publish(f"rq:pubsub:{name}", json.dumps({"command": "shutdown"}))
            redis.publish(f"rq:pubsub:{name}", pickle.dumps(Trap(sprung)))
        redis.set(f"rq:queue:{QUEUE_NAME}:intermediate", pickle.dumps(Trap(sprung)))
        redis.zadd(f"rq:scheduled:{QUEUE_NAME}", {"os.system": 0})
        job_ids = world.submit(2, steps=2)
        world.wait(job_ids)
        wait_until(lambda: not redis.llen(f"rq:queue:{QUEUE_NAME}"), what=f"the queue to be empty\n{world.log()}")
        assert world.processes["worker-1"].restarts == 0, world.log()
        # What a worker that starts finds there is not run either; and a queue that is no list is made anew.
        redis.delete(f"rq:queue:{QUEUE_NAME}")
        redis.set(f"rq:queue:{QUEUE_NAME}", pickle.dumps(Trap(sprung)))
        world.processes["worker-1"].kill()
        job_ids += world.submit(2, steps=2)
        world.wait(job_ids)
        assert check(world) == {"succeeded": 4}
        assert {entry.job for entry in ledger.read(world.record)} == set(job_ids)
    assert not sprung.exists()
    report.add(
        "a foreign or pickled payload put into Valkey",
        f"{3 * len(calls)} records, callbacks, commands by pub/sub, a registry of another type",
        outcome="nothing ran, the worker went on",
    )


def _put(redis: Redis, job_id: str, data: bytes, **fields: str) -> None:
    mapping: dict[str, Any] = {"data": data, "created_at": "2026-01-01T00:00:00.000000Z", "origin": QUEUE_NAME}
    redis.hset(RqJob.key_for(job_id), mapping=mapping | fields)
    redis.rpush(f"rq:queue:{QUEUE_NAME}", job_id)
