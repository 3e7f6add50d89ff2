"""Step: jobs in `validating` have their files checked against the row format of their method, several at once."""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Sequence

from service.context import Context
from service.controller import queries
from service.files.checking import CheckAbandoned, Needed, NeededUntil
from service.jobs import lifecycle, repository
from service.jobs.datasets import BadFile, DatasetChecks
from service.jobs.errors import StaleLease
from service.jobs.lifecycle import JobFailureReason
from service.kit import tracing
from service.kit.errors import Unavailable
from service.kit.log import log_subject
from service.queue.base import JobIdQueue
from service.storage.errors import StorageFull, StorageUnavailable
from service.tables.jobs import JobRow, JobState

_log = logging.getLogger(__name__)


class Validation:
    """Checks the files of waiting jobs, each job in a thread, for the projects in turns.

    The next place goes to the project with the fewest checks under way, of equals to the one that waits for the
    longest; no project has more than a quarter of the places. Each check runs in a process of its own if its file is
    not small. The check of a job that does not wait for it any more, as it was cancelled, is ended.
    """

    def __init__(self, context: Context) -> None:
        self._context = context
        self._places = context.settings.job_checks
        self._per_project = max(1, self._places // 4)
        self._checks = DatasetChecks(context)
        self._lock = threading.Lock()
        self._under_way: dict[str, str] = {}
        """Jobs, and their projects."""
        self._last_turns: dict[str, int] = {}
        self._turns = self._decided = 0
        self._failures: list[Exception] = []
        self._changed, self._closing = threading.Event(), threading.Event()

    def __call__(self) -> None:
        """Begin the checks for which there are places, then wait until one ends or it is time to look again.

        Raises what kept a check from its end since the last call, Unavailable and StorageUnavailable among it: those
        jobs wait.
        """
        # Cleared before the look: a check that ends during it sets the event again, and no wake-up is lost.
        self._changed.clear()
        self._raise_failure()
        self._begin_checks()
        self._changed.wait(self._context.settings.poll_seconds)

    def check_all(self) -> int:
        """Check until no job waits; return how many were decided. Raises as a call does."""
        while True:
            self._changed.clear()
            self._raise_failure()
            self._begin_checks()
            with self._lock:
                if not self._under_way and not self._failures:
                    return self._decided
            self._changed.wait()

    def close(self) -> None:
        """End what is under way; those jobs stay as they are."""
        self._closing.set()

    def _begin_checks(self) -> None:
        with self._lock:
            under_way = dict(self._under_way)
        free = self._places - len(under_way)
        if free <= 0:
            return
        with self._context.db.read() as session:
            # A few of each project: otherwise one project's thousand jobs would hide the others'.
            waiting = queries.validating_jobs(session, apart_from=list(under_way), per_project=self._per_project)
        checks_per_project = Counter(under_way.values())
        while free and (job := self._choose_job(waiting, checks_per_project)) is not None:
            waiting.remove(job)
            checks_per_project[job.project_id] += 1
            free -= 1
            self._begin_check(job)
        project_ids = {job.project_id for job in waiting} | checks_per_project.keys()
        self._last_turns = {project: turn for project, turn in self._last_turns.items() if project in project_ids}

    def _choose_job(self, waiting: Sequence[JobRow], checks_per_project: Counter[str]) -> JobRow | None:
        eligible_jobs = (job for job in waiting if checks_per_project[job.project_id] < self._per_project)
        order = (
            ((checks_per_project[job.project_id], self._last_turns.get(job.project_id, 0), job.seq), job)
            for job in eligible_jobs
        )
        return min(order, key=lambda entry: entry[0], default=(None, None))[1]

    def _begin_check(self, job: JobRow) -> None:
        self._turns += 1
        self._last_turns[job.project_id] = self._turns
        with self._lock:
            self._under_way[job.id] = job.project_id
        threading.Thread(target=self._run_check, args=(job,), name=f"check {job.id}", daemon=True).start()

    def _run_check(self, job: JobRow) -> None:
        try:
            with (
                log_subject(job.id),
                tracing.span("validate files", {"burnish.job.id": job.id}, parent=job.traceparent),
            ):
                needed = NeededUntil(lambda: not self._closing.is_set() and _still_validating(self._context, job.id))
                _apply_outcome(self._context, job, _check_job(self._checks, job, needed))
            with self._lock:
                self._decided += 1
        except CheckAbandoned:
            _log.info("%s does not need the check of its files any more", job.id)
        except Exception as error:  # noqa: BLE001 - raised again by the next call
            with self._lock:
                self._failures.append(error)
        finally:
            with self._lock:
                # Only after the outcome was written: a job that is still `validating` in SQL would be chosen again.
                del self._under_way[job.id]
            self._changed.set()

    def _raise_failure(self) -> None:
        with self._lock:
            failures, self._failures = self._failures, []
        if failures:
            raise failures[0]


def validate_jobs(context: Context, _queue: JobIdQueue) -> int:
    """Check the files of all waiting jobs; each ends up queued or failed. Return how many were decided.

    Raises Unavailable, StorageUnavailable: those jobs wait.
    """
    return Validation(context).check_all()


def _still_validating(context: Context, job_id: str) -> bool:
    with context.db.read() as session:
        job = repository.by_id(session, job_id)
    return job is not None and job.state == JobState.VALIDATING


def _check_job(checks: DatasetChecks, job: JobRow, needed: Needed) -> list[BadFile]:
    try:
        file_ids = {"training_file": job.training_file, "validation_file": job.validation_file}
        outcomes = [checks.check_file(job, param, file_id, needed) for param, file_id in file_ids.items() if file_id]
        return [bad for bad in outcomes if bad is not None]
    except (CheckAbandoned, Unavailable, StorageUnavailable, StorageFull):
        raise
    except Exception:  # noqa: BLE001 - logged, and the job ends with it
        # One file that our own code stumbles over must not hold up every other job.
        _log.exception("checking the files of %s ended with an unexpected error", job.id)
        return [
            BadFile(
                JobFailureReason("server_error", "The service made an error while checking the files; see its log.")
            )
        ]


def _apply_outcome(context: Context, job: JobRow, bad_files: Sequence[BadFile]) -> None:
    try:
        with context.db.write() as session:
            if not bad_files:
                lifecycle.queue_up(session, job.id)
                return
            now = repository.lock_job(session, job.id)
            if now is None or now.state != JobState.VALIDATING:  # another controller was faster, or it was cancelled
                return
            for bad in bad_files:
                if bad.problems is not None:
                    message = f"{bad.problems['filename']} cannot be used as {bad.error.param}"
                    repository.add_event(session, job.id, message, level="error", data=bad.problems)
            lifecycle.fail_job(session, job.id, bad_files[0].error)
    except StaleLease:
        _log.info("%s was cancelled while its files were checked", job.id)
