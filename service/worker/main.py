"""The worker process: RQ brings ids from one queue, and only `run_job` with one well-formed id is ever run.

RQ is the transport alone. What it stores of a job (function names, callbacks, webhooks, results) is text that
anybody with access to the server could have written: nothing of it is imported, called or loaded as a pickle.
"""

from __future__ import annotations

import logging
import os
import secrets
import signal
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from types import FrameType
from typing import Any

from redis import Redis
from redis.exceptions import RedisError, ResponseError
from rq.exceptions import StopRequested
from rq.job import Job
from rq.queue import Queue
from rq.serializers import JSONSerializer
from rq.utils import now
from rq.worker import SimpleWorker
from rq.worker_registration import clean_worker_registry

from service.context import open_context
from service.kit import ids, telemetry
from service.kit.errors import Unavailable
from service.kit.log import in_own_context
from service.kit.settings import Settings
from service.queue.rq import AWAY, FUNCTION, QUEUE_NAME, address_of, connect, drop_foreign
from service.worker.bases import PREPARE_COMMAND
from service.worker.exporter import EXPORT_COMMAND, Exporter
from service.worker.presence import Presence
from service.worker.previews import Previewer
from service.worker.run import WorkerRuntime, run_job
from service.worker.stage import sweep
from service.worker.supervise import TRAINER_COMMAND
from service.workers.capacity import own_capacity

log = logging.getLogger(__name__)

RETRIES = 200
"""With waits of up to 5 s: a worker outlives about 16 minutes without its queue."""
WORKER_TTL = 60


def run_worker(
    settings: Settings,
    *,
    name: str,
    trainer_command: Sequence[str] = TRAINER_COMMAND,
    prepare_command: Sequence[str] = PREPARE_COMMAND,
    export_command: Sequence[str] = EXPORT_COMMAND,
) -> int:
    """Work until SIGTERM or SIGINT; return 0 then, 1 where the worker ended by itself.

    Call it from the process's main thread. A job that runs at the signal is given back to the queue.
    """
    telemetry.begin(settings, "worker", name)
    context = open_context(settings)
    stop = threading.Event()
    if left := sweep(settings.work):
        log.warning("Removed %d work folder(s) that killed workers had left", left)
    runtime = WorkerRuntime(
        context=context,
        owner=name,
        stop=stop,
        trainer_command=trainer_command,
        prepare_command=prepare_command,
        capacity=own_capacity(settings),
    )
    present = Presence(context, name=name, capacity=runtime.capacity)
    previewer = Previewer(context, worker_id=present.worker_id, prepare_command=prepare_command)
    exporter = Exporter(context, owner=name, command=export_command, prepare_command=prepare_command)
    try:
        with suppress(StopRequested):
            _stop_at_signals(stop)
            log.info("Worker %s starts; its queue is at %s", name, address_of(settings.redis))
            worker = _IdWorker(settings.redis, name=name, stop=stop, run=partial(run_job, runtime))
            with present, previewer, exporter:
                worker.work()
    finally:
        context.db.close()
    log.info("Worker %s has stopped", name)
    return 0 if stop.is_set() else 1


def _stop_at_signals(stop: threading.Event) -> None:
    """Let SIGTERM and SIGINT end the process in order from now on; RQ handles them only once it has found the queue."""

    def request_stop(signum: int, _frame: FrameType | None) -> None:
        if stop.is_set():
            return
        log.info("Got %s", signal.Signals(signum).name)
        stop.set()
        raise StopRequested

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, request_stop)


def requested_id(job: Job) -> str | None:
    """Return the id that a payload asks to run. None for anything but `run_job` with the record's own id."""
    payload: Any = job
    try:
        call = (payload.func_name, payload.instance, payload.args, payload.kwargs)
    except Exception:  # noqa: BLE001 - whatever a foreign payload provokes, it is not a call of ours
        return None
    return job.id if call == (FUNCTION, None, [job.id], {}) else None


class _IdQueue(Queue):
    """Drops what is not a job id, or has a record that RQ cannot read, instead of ending the worker."""

    @classmethod
    def lmove(cls, connection: Redis, queue_key: str, timeout: int | None) -> Any:
        while True:
            try:
                moved: Any = super().lmove(connection, queue_key, timeout)
            except ResponseError:
                if drop_foreign(connection, queue_key, cls.get_intermediate_queue_key(queue_key)):
                    continue
                raise
            if moved is None or ids.is_id(moved[1].decode("utf-8", "replace"), ids.JOB):
                return moved
            log.warning("Dropped an entry of the queue that is no job id: %.80r", moved[1])
            cls.forget(connection, queue_key, moved[1])

    @classmethod
    def _fetch_dequeued_job(cls, connection: Redis, queue_key: str, job_id: str, *args: Any, **options: Any) -> Any:
        try:
            return super()._fetch_dequeued_job(connection, queue_key, job_id, *args, **options)
        except (*AWAY, StopRequested):
            raise
        except Exception as error:  # noqa: BLE001 - a record from outside can be wrong in any way
            log.warning("Dropped the record of %s, which cannot be read: %s", job_id, type(error).__name__)
            cls.forget(connection, queue_key, job_id)
            connection.delete(Job.key_for(job_id))
            return None

    @classmethod
    def forget(cls, connection: Redis, queue_key: str, entry: str | bytes) -> None:
        """Take out an entry that BLMOVE has moved aside."""
        aside = cls.get_intermediate_queue_key(queue_key)
        try:
            connection.lrem(aside, 0, entry)  # pyright: ignore[reportArgumentType] - its stubs know no bytes
        except ResponseError:
            drop_foreign(connection, aside)

    @staticmethod
    def get_intermediate_queue_key(queue_key: str) -> str:
        """Return where BLMOVE puts the ids of this queue."""
        return f"{queue_key}:intermediate"


class _IdWorker(SimpleWorker):
    """An RQ worker on one queue that takes ids from it and does its own running, stopping and cleaning up."""

    def __init__(self, url: str, *, name: str, stop: threading.Event, run: Callable[[str], None]) -> None:
        connection = connect(url, retries=RETRIES)
        # Two queues would make RQ pop by BLPOP, which loses the id of a worker that dies.
        queue = _IdQueue(QUEUE_NAME, connection=connection, serializer=JSONSerializer)
        super().__init__(  # pyright: ignore[reportUnknownMemberType]
            [queue],
            # Unique, because RQ refuses the name of a killed worker until its record has expired.
            name=f"{name}.{os.getpid()}.{secrets.token_hex(4)}",
            connection=connection,
            queue_class=_IdQueue,
            serializer=JSONSerializer,
            worker_ttl=WORKER_TTL,
            log_job_description=False,
        )
        self._farewell = connect(url, retries=0)
        self._listens = f"Worker {name} listens on the queue at {address_of(url)}"
        self._stop = stop
        self._run = run
        self._busy = False

    def execute_job(self, job: Job, queue: Queue) -> None:
        """Take the id out of the queue for good, then run the job that SQL knows by it."""
        self._busy = True
        try:
            # Lost from here on if this process dies: the controller finds the job queued in SQL and sends it again.
            self.connection.delete(job.key)
            _IdQueue.forget(self.connection, queue.key, job.id)
            job_id = requested_id(job)
            if job_id is None:
                log.warning("Dropped %s: its payload is not a call of %s with its id", job.id, FUNCTION)
            else:
                in_own_context(self._run, job_id)
        except Unavailable as error:
            log.warning("%s could not be claimed: %s The controller sends it again.", job.id, error.message)
        except Exception:
            log.exception("%s could not be run", job.id)
        finally:
            self._busy = False

    def request_stop(self, signum: int, frame: FrameType | None) -> None:  # noqa: ARG002 - a signal handler
        """Handle SIGTERM and SIGINT: at once where idle, after the running job has been given back otherwise."""
        if self._stop.is_set():
            return
        log.info("Got %s", signal.Signals(signum).name)
        self._stop.set()
        self._stop_requested = True
        if not self._busy:
            raise StopRequested

    def bootstrap(self, *_: Any, **__: Any) -> None:
        """Register; the log is this service's own, and RQ's commands by pub/sub are not listened to."""
        self.register_birth()
        log.info(self._listens)

    def run_maintenance_tasks(self) -> None:
        """Forget dead workers, and ids that died with one: the controller sends them again."""
        self.connection.delete(_IdQueue.get_intermediate_queue_key(self.queues[0].key))
        clean_worker_registry(self.queues[0])
        self.last_cleaned_at = now()

    def teardown(self) -> None:
        """Sign off, without waiting for a server that is away."""
        self.connection = self._farewell
        with suppress(RedisError):
            self.register_death()
