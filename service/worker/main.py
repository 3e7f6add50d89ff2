"""The worker process: ids come from the queue, and only `run_job` with one well-formed id is ever run."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from contextlib import closing, suppress
from functools import partial

from service.context import open_context
from service.kit import telemetry
from service.kit.errors import Unavailable
from service.kit.log import in_own_context
from service.kit.settings import Settings
from service.queue.consumer import JobConsumer, StopRequested
from service.queue.rq import address_of
from service.staging.base_checks import INSPECT_COMMAND
from service.staging.bases import PREPARE_COMMAND
from service.worker.base_watch import BaseWatch
from service.worker.exporter import EXPORT_COMMAND, Exporter
from service.worker.presence import WorkerPresence
from service.worker.previews import Previewer
from service.worker.run import WorkerRuntime, run_job
from service.worker.stage import sweep_folders
from service.worker.supervise import TRAINER_COMMAND
from service.workers.capacity import own_capacity

log = logging.getLogger(__name__)


def run_worker(
    settings: Settings,
    *,
    name: str,
    trainer_command: Sequence[str] = TRAINER_COMMAND,
    prepare_command: Sequence[str] = PREPARE_COMMAND,
    export_command: Sequence[str] = EXPORT_COMMAND,
    inspect_command: Sequence[str] = INSPECT_COMMAND,
) -> int:
    """Work until SIGTERM or SIGINT; return 0 then, 1 if the worker ended by itself.

    Call it from the process's main thread. A job that runs at the signal returns to the queue.
    """
    telemetry.set_up_telemetry(settings, "worker", name)
    context = open_context(settings)
    stop = threading.Event()
    if folders := sweep_folders(settings.work):
        log.warning("Removed %d work folder(s) that killed workers had left", folders)
    runtime = WorkerRuntime(
        context=context,
        owner=name,
        stop=stop,
        trainer_command=trainer_command,
        prepare_command=prepare_command,
        capacity=own_capacity(settings),
    )
    present = WorkerPresence(context, name=name, capacity=runtime.capacity)
    previewer = Previewer(context, worker_id=present.worker_id, prepare_command=prepare_command)
    exporter = Exporter(context, owner=name, command=export_command, prepare_command=prepare_command)
    bases = BaseWatch(context, command=inspect_command)
    try:
        with suppress(StopRequested):
            consumer = JobConsumer(settings.redis, name=name, stop=stop)
            log.info("Worker %s starts; its queue is at %s", name, address_of(settings.redis))
            with closing(consumer), bases, present, previewer, exporter:
                consumer.consume_ids(partial(_run_unless_unavailable, runtime))
    finally:
        context.db.close()
    log.info("Worker %s has stopped", name)
    return 0 if stop.is_set() else 1


def _run_unless_unavailable(runtime: WorkerRuntime, job_id: str) -> None:
    try:
        in_own_context(run_job, runtime, job_id)
    except Unavailable as error:
        log.warning("%s could not be claimed: %s The controller sends it again.", job_id, error.message)
