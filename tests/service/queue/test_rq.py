"""The queue on a real Valkey."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest
from redis import Redis

from service.kit import ids
from service.kit.settings import SettingsError
from service.queue.base import JobIdQueue, QueueUnavailable
from service.queue.embedded import MAX_SOCKET_PATH, EmbeddedValkey, ValkeyFailed
from service.queue.memory import MemoryJobQueue
from service.queue.rq import FUNCTION, QUEUE_NAME, RqJobQueue, address_of, connect_redis
from tests.fixtures.valkey import run_valkey
from tests.service.worker.world import eventually

pytestmark = pytest.mark.integration
LIST = f"rq:queue:{QUEUE_NAME}"


@pytest.fixture(scope="module")
def valkey() -> Iterator[EmbeddedValkey]:
    with run_valkey() as server:
        yield server


@pytest.fixture
def redis(valkey: EmbeddedValkey) -> Iterator[Redis]:
    with Redis.from_url(valkey.url) as client:
        client.flushall()
        yield client


@pytest.fixture
def queue(valkey: EmbeddedValkey, redis: Redis) -> Iterator[RqJobQueue]:
    made = RqJobQueue(valkey.url)
    yield made
    made.close()


@pytest.fixture(params=["memory", "rq"])
def any_queue(request: pytest.FixtureRequest) -> JobIdQueue:
    return MemoryJobQueue() if request.param == "memory" else request.getfixturevalue("queue")


@pytest.mark.parametrize("url", ["nowhere", "http://host", "redis://host:port"])
def test_a_wrong_address_is_one_sentence_for_every_process(url: str) -> None:
    with pytest.raises(SettingsError, match="BURNISH_REDIS_URL"):
        connect_redis(url, retries=0)
    with pytest.raises(SettingsError, match="BURNISH_REDIS_URL"):
        RqJobQueue(url)


def test_an_id_waits_once_however_often_it_is_sent(any_queue: JobIdQueue) -> None:
    first, second = ids.new_id(ids.JOB), ids.new_id(ids.JOB)
    any_queue.check()
    for job_id in (first, second, first):
        any_queue.push(job_id)
    assert any_queue.waiting_ids() == {first, second}


def test_memory_gives_the_oldest_first() -> None:
    queue = MemoryJobQueue()
    pushed = [ids.new_id(ids.JOB) for _ in range(3)]
    for job_id in pushed:
        queue.push(job_id)
    assert [queue.pop() for _ in range(4)] == [*pushed, None]


def test_only_the_id_travels_and_nothing_is_pickled(queue: RqJobQueue, redis: Redis) -> None:
    job_id = ids.new_id(ids.JOB)
    queue.push(job_id)
    queue.push(job_id)
    assert redis.lrange(LIST, 0, -1) == [job_id.encode()]
    record = redis.hgetall(f"rq:job:{job_id}")
    from rq.job import Job
    from rq.serializers import JSONSerializer

    job = Job.fetch(job_id, connection=redis, serializer=JSONSerializer)
    assert (job.func_name, list(job.args), job.kwargs, job.timeout) == (FUNCTION, [job_id], {}, -1)
    assert b"\x80\x05" not in b"".join(record.values())


def test_the_function_of_the_payload_exists() -> None:
    module, _, name = FUNCTION.rpartition(".")
    assert callable(getattr(import_module(module), name))


def test_what_an_earlier_run_left_does_not_block_a_push(queue: RqJobQueue, redis: Redis) -> None:
    job_id = ids.new_id(ids.JOB)
    queue.push(job_id)
    redis.delete(LIST)
    redis.hset(f"rq:job:{job_id}", "status", "finished")
    queue.push(job_id)
    assert queue.waiting_ids() == {job_id}
    assert redis.hget(f"rq:job:{job_id}", "status") == b"queued"


def test_an_id_without_a_record_is_sent_anew(queue: RqJobQueue, redis: Redis) -> None:
    job_id = ids.new_id(ids.JOB)
    redis.rpush(LIST, job_id)
    queue.push(job_id)
    assert redis.lrange(LIST, 0, -1) == [job_id.encode()]
    assert redis.exists(f"rq:job:{job_id}")


def test_foreign_entries_do_not_show_as_waiting(queue: RqJobQueue, redis: Redis) -> None:
    redis.rpush(LIST, b"\xff\xfe", "some-other-job", "任务")
    assert queue.waiting_ids() == frozenset()


def test_a_queue_that_became_something_else_is_recreated(queue: RqJobQueue, redis: Redis) -> None:
    redis.set(LIST, "不是队列")
    job_id = ids.new_id(ids.JOB)
    with pytest.raises(QueueUnavailable):
        queue.push(job_id)
    queue.push(job_id)
    assert queue.waiting_ids() == {job_id}


def test_an_unreachable_server_is_reported_and_its_data_survives() -> None:
    with run_valkey() as server:
        queue, job_id = RqJobQueue(server.url), ids.new_id(ids.JOB)
        queue.push(job_id)
        server.stop()
        with pytest.raises(QueueUnavailable, match=r"valkey\.sock does not answer"):
            queue.push(ids.new_id(ids.JOB))
        server.start()
        assert queue.waiting_ids() == {job_id}
        queue.close()


def test_messages_name_the_address_without_the_password() -> None:
    assert address_of("redis://user:geheim@valkey.internal:7000/0") == "valkey.internal:7000"
    assert address_of("redis://:geheim@valkey") == "valkey:6379"
    assert address_of("unix:///data/valkey.sock") == "/data/valkey.sock"


def test_the_socket_is_for_its_owner_alone(valkey: EmbeddedValkey) -> None:
    assert valkey.folder.stat().st_mode & 0o777 == 0o700
    assert valkey.socket.stat().st_mode & 0o777 == 0o700


def test_a_second_server_on_the_same_folder_is_refused(valkey: EmbeddedValkey) -> None:
    with pytest.raises(ValkeyFailed, match="already runs"):
        EmbeddedValkey(valkey.folder).start()


def test_a_folder_with_a_long_path_gets_a_short_socket(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = tmp_path / ("长" * 40)
    with EmbeddedValkey(folder) as server:
        assert len(os.fsencode(server.socket)) <= MAX_SOCKET_PATH
        assert server.socket.parent.stat().st_mode & 0o777 == 0o700
        RqJobQueue(server.url).check()
        assert (folder / "appendonlydir").is_dir()
        short = server.socket.parent
    assert not short.exists()
    assert "too long" in caplog.text


def test_valkey_ends_with_the_process_that_started_it(tmp_path: Path) -> None:
    code = (
        "import sys, time, pathlib\n"
        "from service.queue.embedded import EmbeddedValkey\n"
        "print(EmbeddedValkey(pathlib.Path(sys.argv[1])).start().pid, flush=True)\n"
        "time.sleep(600)\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "v")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert Path(f"/proc/{pid}").exists()
        parent.send_signal(signal.SIGKILL)
    eventually(lambda: _gone(pid))


def _gone(pid: int) -> bool:
    try:
        return " (" in (text := Path(f"/proc/{pid}/stat").read_text()) and text.rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def test_what_is_removed_waits_no_more_and_leaves_nothing(any_queue: JobIdQueue) -> None:
    gone, stays = [ids.new_id(ids.JOB) for _ in range(3)], ids.new_id(ids.JOB)
    for job_id in (*gone, stays):
        any_queue.push(job_id)
    any_queue.remove_ids([*gone, ids.new_id(ids.JOB)])
    any_queue.remove_ids([])
    assert any_queue.waiting_ids() == {stays}
    any_queue.push(gone[0])
    assert any_queue.waiting_ids() == {stays, gone[0]}


def test_removal_leaves_no_record(queue: RqJobQueue, redis: Redis) -> None:
    job_id = ids.new_id(ids.JOB)
    before = set(redis.keys())
    queue.push(job_id)
    queue.remove_ids([job_id])
    assert set(redis.keys()) - before <= {b"rq:queues"}
