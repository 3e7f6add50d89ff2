"""Counts previews beside the training, in a thread and a process of their own: one at a time, with little priority."""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from service.context import Context
from service.files.checking import CheckAbandoned, NeededUntil
from service.jobs.datasets import DatasetChecks
from service.jobs.lifecycle import JobFailureReason
from service.kit import tracing
from service.kit.errors import ServiceError, Unavailable
from service.kit.log import log_subject
from service.previews import repository
from service.previews.service import job_of
from service.staging.bases import PREPARE_COMMAND, prepared_base
from service.staging.child import read_tail, trainer_environment
from service.staging.errors import AttemptEnd, AttemptFailed, JobFailedForGood
from service.staging.hold import UnleasedHold, WorkHold
from service.tables.jobs import JobRow
from service.tables.previews import PreviewRow
from service.worker.background import BackgroundWork
from service.worker.counting import PreviewCounter
from service.worker.messages import without_nul
from service.worker.stage import stage_job, uses_gpu, work_folder
from trainer.contract.preview import LOG_NAME, PREVIEW_NAME, CountedJob, PreviewFailure, PreviewOutcome

log = logging.getLogger(__name__)

PREVIEW_COMMAND = (sys.executable, "-m", "trainer.programs.preview")


class Previewer(BackgroundWork):
    """A context manager around the thread."""

    def __init__(
        self,
        context: Context,
        *,
        worker_id: str,
        command: Sequence[str] = PREVIEW_COMMAND,
        is_warm: bool = True,
        prepare_command: Sequence[str] = PREPARE_COMMAND,
    ) -> None:
        super().__init__("previews")
        self._context = context
        self._worker_id = worker_id
        self._counter = PreviewCounter(command, settings=context.settings, is_warm=is_warm)
        self._prepare_command = prepare_command
        self._checks = DatasetChecks(context)

    def _run_until_stopped(self) -> None:
        # Children die with the thread that starts them: this one lives as long as the worker.
        with self._counter:
            self._count_next_ones()

    def _count_next_ones(self) -> None:
        while not self._stop.wait(self._context.settings.poll_seconds):
            try:
                while not self._stop.is_set() and self.count_next():
                    pass
                self._counter.stop_if_idle()
            except Unavailable as error:
                log.warning("Previews wait: %s", error.message)
            except Exception:  # the next one may be another matter
                log.exception("A preview could not be counted")

    def count_next(self) -> bool:
        """Count the preview that is first in turn; False if none waits. Raises Unavailable."""
        within = self._context.settings.preview_seconds
        with self._context.db.read() as session:
            if not repository.preview_waits(session, within=within):
                return False
        with self._context.db.write() as session:
            preview = repository.claim_preview(session, worker_id=self._worker_id, within=within)
        if preview is None:  # another worker was faster
            return False
        with log_subject(preview.id), tracing.span("preview"):
            outcome = self._make_outcome(preview)
        with self._context.db.write() as session:
            repository.finish_preview(session, preview.id, outcome.model_dump(mode="json"))
        return True

    def _make_outcome(self, preview: PreviewRow) -> PreviewOutcome:
        job, hold = job_of(preview), PreviewHold(self._context, preview.id, self._stop)
        try:
            self._check_files(job)
            return PreviewOutcome(counted=self._count_preview(job, hold, preview.rows_shown))
        except _PreviewFailed as error:
            return PreviewOutcome(failed=error.failed)
        except JobFailedForGood as error:
            return PreviewOutcome(failed=_describe_failure(error.error, fault=False))
        except AttemptFailed as error:
            return PreviewOutcome(failed=_describe_failure(error.error, fault=True))
        except Unavailable:
            raise
        except (AttemptEnd, ServiceError, OSError) as error:
            log.warning("%s: %s", preview.id, error)
            reason = f"The worker could not count the preview ({type(error).__name__}); its log has the details."
            return PreviewOutcome(failed=_describe_failure(JobFailureReason("worker_error", reason), fault=True))

    def _check_files(self, job: JobRow) -> None:
        """Check the files as those of a job that was created. Raises _PreviewFailed, AttemptFailed."""
        needed = NeededUntil(
            lambda: not self._stop.is_set() and self._is_wanted(job.id), seconds=self._context.settings.preview_seconds
        )
        files = {"training_file": job.training_file, "validation_file": job.validation_file}
        for param, file_id in files.items():
            try:
                bad = self._checks.check_file(job, param, file_id, needed) if file_id else None
            except CheckAbandoned:
                raise AttemptFailed("preview_timeout", "Checking the files took longer than a preview may.") from None
            if bad is not None:
                details = bad.problems["problems"] if bad.problems else None
                raise _PreviewFailed(_describe_failure(bad.error, fault=False, details=details))

    def _count_preview(self, job: JobRow, hold: WorkHold, rows: int) -> CountedJob:
        settings = self._context.settings
        with work_folder(settings.work, job.id, 0) as folder:
            bases = partial(
                prepared_base, self._context, job.project_id, hold, workdir=folder, command=self._prepare_command
            )
            stage_job(self._context, job, hold, folder=folder, bases=bases, since=time.monotonic())
            hold.report_progress("A worker reads and counts the rows", "count")
            scratch = folder / "tmp"
            scratch.mkdir()
            environment = trainer_environment(settings, scratch, gpu=uses_gpu(job))
            self._counter.start_count(folder, rows, environment)
            self._wait_for_count(hold, job.id)
            return _read_outcome(folder)

    def _wait_for_count(self, hold: WorkHold, preview_id: str) -> None:
        """Wait for the end of the counting, or end it in time. Raises AttemptFailed, WorkerStopping."""
        seconds = self._context.settings.preview_seconds
        # From here: a base's first use, which takes minutes, is not in it.
        deadline = time.monotonic() + seconds
        try:
            while not self._counter.wait_for_count(self._context.settings.poll_seconds):
                hold.check_all()
                self._check_wanted(preview_id)
                if time.monotonic() > deadline:
                    raise AttemptFailed(
                        "preview_timeout",
                        f"The counting took more than {seconds:g} seconds: preview a smaller file with the same kind "
                        "of rows, or raise BURNISH_PREVIEW_SECONDS.",
                    )
        except BaseException:
            self._counter.kill()
            raise

    def _check_wanted(self, preview_id: str) -> None:
        """Raise AttemptFailed if no request waits for the answer any more."""
        if not self._is_wanted(preview_id):
            raise AttemptFailed("preview_given_up", "Nobody waits for the preview any more.")

    def _is_wanted(self, preview_id: str) -> bool:
        with self._context.db.read() as session:
            return repository.by_id(session, preview_id) is not None


class PreviewHold(UnleasedHold):
    """Goes on until the worker stops: a base that is being prepared is finished, though its first preview gives up."""

    def __init__(self, context: Context, preview_id: str, stop: threading.Event) -> None:
        super().__init__(preview_id, stop=stop, poll_seconds=context.settings.poll_seconds)
        self._db = context.db

    def report_progress(self, message: str, once_key: str, *, level: str = "info") -> None:  # noqa: ARG002 - the last one counts
        """Keep the sentence for the caller, who may not wait until the end."""
        with self._db.write() as session:
            repository.set_note(session, self._subject, message)


class _PreviewFailed(Exception):
    def __init__(self, failure: PreviewFailure) -> None:
        super().__init__(failure.message)
        self.failed = failure


def _describe_failure(
    error: JobFailureReason, *, fault: bool, details: list[dict[str, object]] | None = None
) -> PreviewFailure:
    message = without_nul(error.message)
    return PreviewFailure(code=error.code, message=message, param=error.param, fault=fault, details=details)


def _read_outcome(folder: Path) -> CountedJob:
    """Return what the child left. Raises _PreviewFailed, AttemptFailed."""
    try:
        outcome = PreviewOutcome.model_validate_json((folder / PREVIEW_NAME).read_bytes())
    except (OSError, ValueError) as error:
        log.error("A preview ended without a result. The end of its output:\n%s", read_tail(folder / LOG_NAME))
        raise AttemptFailed("trainer_crashed", "The program that counts ended without a result.") from error
    if outcome.failed is not None:
        if outcome.failed.fault:
            log.error("A preview failed. The end of its output:\n%s", read_tail(folder / LOG_NAME))
        raise _PreviewFailed(outcome.failed)
    assert outcome.counted is not None
    return outcome.counted
