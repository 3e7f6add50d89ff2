"""Base models, made ready to load once a machine and kept in a cache that is keyed by their source.

A base is one of the catalog, or a whole model that an earlier job left.
"""

from __future__ import annotations

import glob
import hashlib
import json
import logging
import secrets
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from service.bases import repository as base_rows
from service.catalog import BaseModelEntry, CatalogHubSource, SourceMissing
from service.context import Context
from service.staging import inputs
from service.staging.base_checks import describe_source, explain_change, look_at_files
from service.staging.child import WorkerChild, trainer_environment
from service.staging.errors import AttemptFailed, JobFailedForGood
from service.staging.hold import WorkHold
from service.staging.local_lock import only_one
from service.tables.base_models import BaseModelRow
from trainer.contract.job import FROM_SCRATCH, BaseModelRef
from trainer.contract.result import ExitCode

log = logging.getLogger(__name__)

PREPARE_COMMAND = (sys.executable, "-m", "trainer.programs.prepare")
LOG_NAME = "prepare.log"
SOURCE_NAME = "source.json"
_PARTIAL = ".partial"
_UNAVAILABLE = "base_model_unavailable"


def prepared_base(
    context: Context,
    project_id: str,
    hold: WorkHold,
    model_id: str,
    *,
    workdir: Path,
    command: Sequence[str] = PREPARE_COMMAND,
) -> tuple[BaseModelRef, Path | None]:
    """Return a base model and the folder that it is ready in; the first use on a machine prepares it.

    There is no folder for a model from scratch.
    Raises JobFailedForGood if this machine cannot have it, AttemptFailed if its preparation failed,
    JobPaused, WorkerStopping and LeaseLost.
    """
    if model_id == FROM_SCRATCH:
        return BaseModelRef(id=model_id, fingerprint=""), None
    if model_id.startswith("ft:"):
        return _fetch_base(context, project_id, hold, model_id)
    entry = context.catalog.find_base(model_id)
    if entry is None:
        raise JobFailedForGood(_UNAVAILABLE, f"The base model {model_id} is no longer in the catalog.", "model")
    target = context.settings.bases / f"{entry.id}-{entry.fingerprint[:12]}"
    _prepare_once(
        context, target, hold, entry.id, lambda partial: _prepare_base(context, entry, partial, hold, workdir, command)
    )
    return BaseModelRef(id=entry.id, fingerprint=entry.fingerprint), target


def _fetch_base(context: Context, project_id: str, hold: WorkHold, name: str) -> tuple[BaseModelRef, Path]:
    result, stored_result = inputs.find_base(context, project_id, name, hold)
    fingerprint = stored_result.manifest_sha256 or hashlib.sha256(stored_result.prefix.encode()).hexdigest()
    target = context.settings.bases / f"{result.job.id}-{fingerprint[:12]}"
    _prepare_once(
        context, target, hold, name, lambda partial: inputs.fetch_base(context, result, stored_result, partial, hold)
    )
    return BaseModelRef(id=name, fingerprint=fingerprint), target


def _prepare_once(context: Context, target: Path, hold: WorkHold, name: str, make: Callable[[Path], None]) -> None:
    """Let `make` fill the folder unless this machine has it; another worker that needs it too waits."""
    if target.is_dir():
        return
    settings = context.settings
    settings.bases.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = target.with_name(f".{target.name}.lock")
    # A base has gigabytes: two workers that prepare the same one at once would double download, disk and time.
    with only_one(lock, hold, poll_seconds=settings.poll_seconds, patience=settings.lease_seconds):
        # Again, under the lock: another worker may have finished while this one waited.
        if target.is_dir():
            return
        hold.report_progress(f"Preparing the base model {name} on this worker (first use)", f"prepare:{name[-40:]}")
        for partial_folder in target.parent.glob(f".{glob.escape(target.name)}.*{_PARTIAL}"):
            shutil.rmtree(partial_folder, ignore_errors=True)
        # A name of its own: a worker that was frozen over this may wake up and write on.
        partial = target.with_name(f".{target.name}.{secrets.token_hex(4)}{_PARTIAL}")
        try:
            # Under another name until it is complete: the folder's existence is all that `_prepare_once` looks at.
            make(partial)
            _put_in_place(partial, target)
        finally:
            shutil.rmtree(partial, ignore_errors=True)


def _put_in_place(partial: Path, target: Path) -> None:
    try:
        partial.rename(target)
    except OSError:
        # rename(2) onto a folder that is not empty fails, which here means that the work is done.
        if not target.is_dir():  # another one did it, while this worker was frozen
            raise


def _prepare_base(
    context: Context, entry: BaseModelEntry, partial: Path, hold: WorkHold, workdir: Path, command: Sequence[str]
) -> None:
    try:
        source = describe_source(context.settings, entry)
    except SourceMissing as error:
        raise JobFailedForGood(_UNAVAILABLE, f"The base model {entry.id} cannot be used: {error}", "model") from error
    _require_same_files(context, entry, hold)
    source_file = workdir / SOURCE_NAME
    source_file.write_text(json.dumps(source), encoding="utf-8")
    child = WorkerChild(
        (*command, str(source_file), str(partial)),
        folder=workdir,
        log_file=workdir / LOG_NAME,
        environment=trainer_environment(context.settings, workdir, hub=isinstance(entry.source, CatalogHubSource)),
    )
    _wait_for_child(child, entry, hold, context.settings.poll_seconds)


def _require_same_files(context: Context, entry: BaseModelEntry, hold: WorkHold) -> None:
    """Raise JobFailedForGood if a base's folder is not what jobs were trained on: their adapters would not fit it."""

    def read_row() -> BaseModelRow | None:
        with context.db.read() as session:
            return base_rows.find_base_row(session, entry.id)

    row = hold.retry_while_database_is_down(read_row)
    change = explain_change(entry, row, look_at_files(entry).files) if row is not None and row.files else None
    if change is not None:
        raise JobFailedForGood(_UNAVAILABLE, change, "model")


def _wait_for_child(child: WorkerChild, entry: BaseModelEntry, hold: WorkHold, poll_seconds: float) -> None:
    try:
        while (status := child.wait(poll_seconds)) is None:
            hold.check_all()
    except BaseException:
        # The child must not go on writing into the folder that the caller removes.
        child.kill()
        raise
    child.close()
    if status == ExitCode.DONE:
        return
    tail = child.tail()
    log.error("Preparing %s ended with status %s:\n%s", entry.id, status, tail)
    message = f"The base model {entry.id} could not be prepared: {_last_line(tail)}"
    # The source itself is unusable: another attempt would fail in the same way.
    if status == ExitCode.BAD_INPUT:
        raise JobFailedForGood(_UNAVAILABLE, message, "model")
    raise AttemptFailed(_UNAVAILABLE, message, "model")


def _last_line(text: str) -> str:
    lines = text.splitlines()
    return lines[-1][:500] if lines else "its program said nothing; the worker's log has the status."
