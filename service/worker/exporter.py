"""Makes exports beside the training, in a thread and processes of their own: one at a time, without the GPU."""

from __future__ import annotations

import logging
import re
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from sqlalchemy.orm import Session

from service.context import Context
from service.exports import lifecycle, repository
from service.jobs.errors import StaleLease
from service.jobs.lifecycle import JobFailureReason
from service.kit import tracing
from service.kit.errors import Unavailable
from service.kit.log import in_own_context, set_subject
from service.staging.bases import PREPARE_COMMAND
from service.staging.child import WorkerChild, trainer_environment
from service.staging.errors import AttemptFailed, JobFailedForGood, LeaseLost, WorkerStopping
from service.tables.exports import ModelExportRow
from service.worker.background import BackgroundWork
from service.worker.export_files import lay_out, pack_export, store_export
from service.worker.lease import Lease
from service.worker.messages import without_nul
from service.worker.run import FULL
from service.worker.stage import work_folder
from trainer.contract.result import ExitCode

log = logging.getLogger(__name__)

EXPORT_COMMAND = (sys.executable, "-m", "trainer.programs.export")
LOG_NAME = "export.log"
_NICENESS = ("nice", "-n", "10")
_NO_MEMORY = (
    "The making of the export was killed, most likely because the worker ran out of memory: it needs about 11 bytes a "
    "weight, beside the training."
)
_SENTENCE = re.compile(r"([a-z_]+): (.+)")


class Exporter(BackgroundWork):
    """A context manager around the thread."""

    def __init__(
        self,
        context: Context,
        *,
        owner: str,
        command: Sequence[str] = EXPORT_COMMAND,
        prepare_command: Sequence[str] = PREPARE_COMMAND,
    ) -> None:
        # An upload may be at its end.
        super().__init__("exports", join_seconds=context.settings.stop_seconds)
        self._context = context
        self._owner = owner
        self._command = command
        self._prepare_command = prepare_command

    def _run_until_stopped(self) -> None:
        # Children die with the thread that starts them: this one lives as long as the worker.
        while not self._stop.wait(self._context.settings.poll_seconds):
            try:
                while not self._stop.is_set() and in_own_context(self.make_next):
                    pass
            except Unavailable as error:
                log.warning("Exports wait: %s", error.message)
            except Exception:  # the next one may be another matter
                log.exception("An export could not be made")

    def make_next(self) -> bool:
        """Make the export that is first in turn; False if none waits. Raises Unavailable."""
        settings = self._context.settings
        with self._context.db.read() as session:
            # A read first: with nothing to do, idle workers do not compete for the write lock.
            if not repository.export_waits(session):
                return False
        # Before the claim, see `Lease`.
        since = time.monotonic()
        with self._context.db.write() as session:
            export = lifecycle.start_export(session, owner=self._owner, lease_seconds=settings.lease_seconds)
        if export is None:
            return False
        set_subject(export.id, export.lease_token)
        log.info("%s claimed with token %d", export.id, export.lease_token)
        lease = ExportLease(
            self._context.db,
            settings,
            job_id=export.id,
            token=export.lease_token,
            stop=self._stop,
            since=since,
            rows=repository,
        )
        with lease:
            try:
                self._attempt_export(export, lease)
                log.info("%s is ready", export.id)
            except (LeaseLost, StaleLease) as error:
                log.warning("Stopped: %s", error)
            except Exception as error:  # noqa: BLE001 - every end of an attempt becomes the export's next status
                self._end_attempt(export, lease, error)
        return True

    def _attempt_export(self, export: ModelExportRow, lease: Lease) -> None:
        context = self._context
        facts = {"burnish.job.id": export.job_id, "burnish.export.id": export.id}
        with tracing.span("export", facts), work_folder(context.settings.work, export.id, lease.token) as folder:
            result = lay_out(context, export, lease, folder, prepare_command=self._prepare_command)
            lease.check_all()
            if export.format != "adapter":
                self._convert_files(folder, lease)
            file, verification = pack_export(export, folder, result, lease)
            store_export(context, export, lease, file, verification)

    def _convert_files(self, folder: Path, lease: Lease) -> None:
        """Run the trainer's program. Raises JobFailedForGood, AttemptFailed, LeaseLost or WorkerStopping."""
        settings = self._context.settings
        scratch = folder / "tmp"
        scratch.mkdir()
        child = WorkerChild(
            (*_NICENESS, *self._command, str(folder)),
            folder=folder,
            log_file=folder / LOG_NAME,
            # The GPU belongs to the training that runs beside it.
            environment=trainer_environment(settings, scratch, gpu=False),
        )
        try:
            while (status := child.wait(settings.poll_seconds)) is None:
                lease.check_all()
        except BaseException:
            child.kill()
            raise
        child.close()
        if status != ExitCode.DONE:
            raise _explain_exit(status, child.tail())

    def _end_attempt(self, export: ModelExportRow, lease: Lease, error: Exception) -> None:
        change = self._change_of(export, lease.token, error)

        def write_end() -> None:
            with self._context.db.write() as session:
                change(session)

        try:
            lease.retry_while_database_is_down(write_end)
        except (LeaseLost, StaleLease) as lost_lease:
            log.warning("Stopped: %s", lost_lease)

    def _change_of(self, export: ModelExportRow, token: int, error: Exception) -> Callable[[Session], None]:
        settings = self._context.settings
        match error:
            case WorkerStopping():
                log.info("%s waits for another worker: this one stops", export.id)
                return lambda session: lifecycle.requeue_export(session, export, settings, token=token)
            case JobFailedForGood():
                log.info("%s failed: %s", export.id, error)
                return lambda session: lifecycle.fail_export(
                    session, export, settings, token=token, error=_clean_error(error.error)
                )
            case AttemptFailed():
                log.error("%s: this attempt failed: %s", export.id, error)
                reason = _clean_error(error.error)
            case OSError() if error.errno in FULL:
                log.error("%s: the disk is full: %s", export.id, error)
                reason = JobFailureReason("disk_full", "The disk of the worker is full: free some space there.")
            case _:
                log.error("%s: unexpected error in the worker", export.id, exc_info=error)
                text = f"The worker failed unexpectedly ({type(error).__name__}); the details are in its log."
                reason = JobFailureReason("worker_error", text)
        return lambda session: lifecycle.retry_or_fail_export(session, export, settings, token=token, error=reason)


class ExportLease(Lease):
    """The lease on an export, which has no events."""

    def report_progress(self, message: str, once_key: str, *, level: str = "info") -> None:  # noqa: ARG002 - all go to the log
        """Write to the worker's log."""
        log.info("%s: %s", self.job_id, message)


def _explain_exit(status: int, tail: str) -> JobFailedForGood | AttemptFailed:
    if status == -signal.SIGKILL:
        return AttemptFailed("out_of_memory", _NO_MEMORY)
    last = tail.splitlines()[-1] if tail else ""
    log.error("The making of an export ended with status %d. The end of its output:\n%s", status, tail)
    match = _SENTENCE.fullmatch(last)
    # Only these statuses promise a sentence as the last line; any other output must not reach a user.
    if match is None or status not in (ExitCode.BAD_INPUT, ExitCode.FAULT):
        return AttemptFailed("trainer_crashed", f"The program that makes exports ended with status {status}.")
    kind = JobFailedForGood if status == ExitCode.BAD_INPUT else AttemptFailed
    return kind(match[1], match[2][:1000])


def _clean_error(error: JobFailureReason) -> JobFailureReason:
    return JobFailureReason(code=error.code, message=without_nul(error.message), param=error.param)
