"""Base models, made ready to load once a machine and kept in a cache that is keyed by their source."""

from __future__ import annotations

import fcntl
import json
import logging
import os
import shutil
import sys
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path

from service.catalog import BaseModelEntry, HubSource, SourceMissing, locate
from service.context import Context
from service.jobs import repository
from service.worker.child import Child, trainer_environment
from service.worker.errors import AttemptFailed, JobFailed
from service.worker.lease import Lease
from trainer.result import ExitCode

log = logging.getLogger(__name__)

PREPARE_COMMAND = (sys.executable, "-m", "trainer.prepare")
LOG_NAME = "prepare.log"
SOURCE_NAME = "source.json"
_UNAVAILABLE = "base_model_unavailable"


def prepared_base(
    context: Context,
    model_id: str,
    lease: Lease,
    *,
    workdir: Path,
    command: Sequence[str] = PREPARE_COMMAND,
) -> tuple[BaseModelEntry, Path]:
    """Return a job's base model and the folder that it is ready in; the first use on a machine prepares it.

    Raises JobFailed where this machine cannot have it, AttemptFailed where its preparation broke off,
    WorkerStopping and LeaseLost.
    """
    settings = context.settings
    entry = context.catalog.find(model_id)
    if entry is None:
        raise JobFailed(_UNAVAILABLE, f"The base model {model_id} is no longer in the catalog.", "model")
    target = settings.bases / f"{entry.id}-{entry.fingerprint[:12]}"
    if target.is_dir():
        return entry, target
    settings.bases.mkdir(mode=0o700, parents=True, exist_ok=True)
    with _only_one(target.with_name(f".{target.name}.lock"), lease, settings.poll_seconds):
        if not target.is_dir():
            _tell(lease, entry)
            _prepare(context, entry, target, lease, workdir, command)
    return entry, target


def _tell(lease: Lease, entry: BaseModelEntry) -> None:
    def write() -> None:
        with lease.write() as session:
            repository.add_event(
                session,
                lease.job_id,
                f"Preparing the base model {entry.id} on this worker (first use)",
                once_key=f"prepare:{lease.token}",
            )

    lease.insist(write)


def _prepare(
    context: Context, entry: BaseModelEntry, target: Path, lease: Lease, workdir: Path, command: Sequence[str]
) -> None:
    try:
        source = locate(entry.source)
    except SourceMissing as error:
        raise JobFailed(_UNAVAILABLE, f"The base model {entry.id} cannot be used: {error}", "model") from error
    partial = target.with_name(f".{target.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    source_file = workdir / SOURCE_NAME
    source_file.write_text(json.dumps(source), encoding="utf-8")
    try:
        child = Child(
            (*command, str(source_file), str(partial)),
            folder=workdir,
            log_file=workdir / LOG_NAME,
            environment=trainer_environment(context.settings, workdir, hub=isinstance(entry.source, HubSource)),
        )
        _wait(child, entry, lease, context.settings.poll_seconds)
        partial.rename(target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _wait(child: Child, entry: BaseModelEntry, lease: Lease, poll_seconds: float) -> None:
    try:
        while (status := child.wait(poll_seconds)) is None:
            lease.check_all()
    except BaseException:
        child.kill()
        raise
    child.close()
    if status == ExitCode.DONE:
        return
    tail = child.tail()
    log.error("Preparing %s ended with status %s:\n%s", entry.id, status, tail)
    message = f"The base model {entry.id} could not be prepared: {_last_line(tail)}"
    if status == ExitCode.BAD_INPUT:
        raise JobFailed(_UNAVAILABLE, message, "model")
    raise AttemptFailed(_UNAVAILABLE, message, "model")


def _last_line(text: str) -> str:
    lines = text.splitlines()
    return lines[-1][:500] if lines else "its program said nothing; the worker's log has the status."


@contextmanager
def _only_one(path: Path, lease: Lease, poll_seconds: float) -> Generator[None, None, None]:
    """Hold a lock among this machine's workers; the kernel frees it when its holder dies."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                lease.check_all()
                lease.pause(poll_seconds)
        yield
    finally:
        os.close(descriptor)
