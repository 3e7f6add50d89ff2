"""Watches one trainer: keeps its events flowing, and ends it when the job is cancelled or the worker must stop."""

from __future__ import annotations

import logging
import signal
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from service.kit import tracing
from service.kit.settings import Settings
from service.staging.child import WorkerChild, trainer_environment
from service.staging.errors import (
    AttemptCrashed,
    AttemptEnd,
    AttemptFailed,
    JobFailedForGood,
    JobPaused,
    JobTimedOut,
    WorkerStopping,
)
from service.storage import Storage
from service.worker.lease import Lease
from service.worker.relay import EventRelay
from service.worker.usage import MachineUsage
from trainer.contract.result import ExitCode

log = logging.getLogger(__name__)

TRAINER_COMMAND = (sys.executable, "-m", "trainer")
LOG_NAME = "trainer.log"


@tracing.trace_calls("train")
def supervise_trainer(
    storage: Storage,
    settings: Settings,
    lease: Lease,
    stop: threading.Event,
    *,
    folder: Path,
    gpu: bool = True,
    gpus: int = 0,
    command: Sequence[str] = TRAINER_COMMAND,
) -> None:
    """Run the trainer in `folder` and return once it has left a result. Call it from the main thread.

    Without `gpu` it sees no GPU; `gpus` is how many it has otherwise.

    Raises JobFailedForGood, AttemptFailed, JobPaused, JobTimedOut, WorkerStopping or LeaseLost, as the trainer ended.
    """
    scratch = folder / "tmp"
    scratch.mkdir()
    relay = EventRelay(storage, lease, folder=folder, poll_seconds=settings.poll_seconds)
    child = WorkerChild(
        (*command, str(folder)),
        folder=folder,
        log_file=folder / LOG_NAME,
        environment=trainer_environment(settings, scratch, gpu=gpu) | tracing.trace_environment(),
    )
    log.info("%s: trainer started with pid %d", lease.job_id, child.pid)
    try:
        relay.start()
        status = _watch_trainer(child, MachineUsage(child.pid, gpus=gpus), relay, lease, stop, settings)
    except BaseException:
        # The trainer goes before its events are dropped: it must not write on a job that this worker has lost.
        child.kill()
        relay.abandon()
        raise
    child.close()
    # After the trainer has ended and before its end is judged, because its last event may hold the error's code.
    relay.drain(in_haste=child.asked_to_stop)
    _judge_exit(status, relay, child, lease, stop)


def _watch_trainer(
    child: WorkerChild, usage: MachineUsage, relay: EventRelay, lease: Lease, stop: threading.Event, settings: Settings
) -> int:
    """Return the trainer's exit status. Nothing here waits for SQL or the blob store."""
    deadline: float | None = None
    while (status := child.wait(settings.poll_seconds)) is None:
        # Raises as soon as the job is cancelled or taken over; the `except` above kills the trainer then.
        usage.count_usage()
        lease.check()
        if relay.failure is not None:
            raise relay.failure
        # Asked once; from here on only the deadline counts.
        if deadline is None and (stop.is_set() or lease.pause_wanted or lease.timed_out):
            log.info("%s: asking the trainer to stop", lease.job_id)
            child.ask_to_stop()
            deadline = time.monotonic() + settings.stop_seconds
        if deadline is not None and time.monotonic() > deadline:
            log.warning("%s: the trainer did not stop in time and is killed", lease.job_id)
            return child.kill()
    return status


def _explain_stop(lease: Lease, stop: threading.Event) -> AttemptEnd:
    """Return why the trainer was asked to stop."""
    if lease.timed_out:
        return JobTimedOut()
    return WorkerStopping() if stop.is_set() else JobPaused()


def _judge_exit(status: int, relay: EventRelay, child: WorkerChild, lease: Lease, stop: threading.Event) -> None:
    if status == ExitCode.DONE:
        return
    # Before the look at `stop`: input that is bad stays bad, and a requeue would only repeat it.
    if status == ExitCode.BAD_INPUT and relay.error is not None:
        raise JobFailedForGood(relay.error.code, relay.error.message, relay.error.param)
    # A trainer that was told to stop may end with any status; that is no failure of the job.
    if child.asked_to_stop or stop.is_set():
        raise _explain_stop(lease, stop)
    log.error("The trainer ended with status %d. The end of its output:\n%s", status, child.tail())
    if relay.error is not None:
        raise AttemptFailed(relay.error.code, relay.error.message, relay.error.param)
    raise _explain_crash(status)


def _explain_crash(status: int) -> AttemptCrashed:
    # This worker's own kills were handled above, so it was the kernel's OOM killer or a person.
    if status == -signal.SIGKILL:
        return AttemptCrashed(
            "out_of_memory",
            "The trainer was killed, most likely because the worker ran out of memory: lower batch_size or "
            "max_length, or use a machine with more memory.",
        )
    if status < 0:
        return AttemptCrashed("trainer_crashed", f"The trainer was ended by {_signal_name(-status)}.")
    if status == ExitCode.STOPPED:
        return AttemptCrashed("trainer_stopped", "The trainer was stopped from outside the worker.")
    return AttemptCrashed(
        "trainer_crashed", f"The trainer ended with status {status} and no reason; the worker's log has its output."
    )


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
