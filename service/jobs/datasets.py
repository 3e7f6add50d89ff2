"""Whether a job can train on its files: each row is checked against the row format of the job's method."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass, replace
from typing import Any

from burnish.datasets import DatasetSummary, describe, is_text
from service.context import Context
from service.files import repository as files
from service.files.check_process import CheckRequest, Paths
from service.files.checking import CheckAbandoned, Needed, check_stored, stored_request
from service.jobs import methods
from service.jobs.lifecycle import JobFailureReason
from service.storage.errors import BlobNotFound
from service.tables.files import FileRow
from service.tables.jobs import JobRow
from trainer.contract.methods import METHODS_BY_TYPE
from trainer.contract.methods.reinforcement import ReinforcementMethod
from trainer.graders import reference_fields, required_fields

_OUTCOMES_KEPT = 1000
_LOOK_SECONDS = 0.5

_Key = tuple[str, str, bool, CheckRequest]


@dataclass(frozen=True)
class BadFile:
    """A dataset that no job can train on."""

    error: JobFailureReason
    problems: dict[str, Any] | None = None
    """What the event shows: the file and its problems, line by line."""


class DatasetChecks:
    """Checks the files of jobs, and keeps the last outcomes: a file that is used again is not read again.

    They are kept in memory, by the bytes' SHA-256 and all that the outcome depends on, apart for each project: how
    fast an answer comes gives away nothing about other projects. Safe to share between threads.
    """

    def __init__(self, context: Context) -> None:
        self._context = context
        self._lock = threading.Lock()
        self._outcomes: OrderedDict[_Key, DatasetSummary] = OrderedDict()
        self._under_way: dict[_Key, threading.Event] = {}

    def check_file(self, job: JobRow, param: str, file_id: str, needed: Needed) -> BadFile | None:
        """Check the rows of one of a job's files. `needed` is called now and then: it returns whether to continue.

        Raises CheckAbandoned, Unavailable, StorageUnavailable.
        """
        role = param.replace("_", " ")
        with self._context.db.read() as session:
            file = files.get_project_file(session, job.project_id, file_id)
        if file is None:
            return _make_bad_file(
                param, f"The {role} {file_id} was deleted before it could be checked: upload it again."
            )
        row_format = METHODS_BY_TYPE[job.method["type"]].row_format
        request = stored_request(self._context.settings, file, row_format, *needs_of(job))
        try:
            summary = self._check_once(file, request, needed)
        except BlobNotFound:
            return _make_bad_file(
                param, f"The bytes of the {role} {file.filename} ({file.id}) are gone: upload it again."
            )
        if summary.ok:
            return None
        problems = {
            "file": file.id,
            "filename": file.filename,
            "param": param,
            "problems": [{"line": problem.line, "reason": problem.reason} for problem in summary.problems],
            "more_problems": summary.more_problems,
        }
        return _make_bad_file(param, describe(file.filename, summary), problems)

    def _check_once(self, file: FileRow, request: CheckRequest, needed: Needed) -> DatasetSummary:
        # By content and not by id, so that the same bytes uploaded again are not checked again. The name counts only
        # for whether it is text.
        key = (file.project_id, file.sha256, is_text(file.filename), replace(request, filename=""))
        # Many jobs of a sweep name the same file: one of them checks it, the others wait and read the kept outcome.
        while (under_way := self._begin_check(key)) is not None:
            if not under_way.wait(_LOOK_SECONDS) and not needed():
                raise CheckAbandoned
        try:
            summary = self._outcomes.get(key)
            if summary is None:
                summary = check_stored(self._context, file, request, needed)
            # The kept outcome says nothing about whether the bytes are still there.
            elif self._context.storage.stat(file.blob_key) is None:
                raise BlobNotFound(file.blob_key)
            with self._lock:
                self._outcomes[key] = summary
                self._outcomes.move_to_end(key)
                while len(self._outcomes) > _OUTCOMES_KEPT:
                    self._outcomes.popitem(last=False)
            return summary
        finally:
            with self._lock:
                self._under_way.pop(key).set()

    def _begin_check(self, key: _Key) -> threading.Event | None:
        """Note that this thread checks; instead, return the event of another's end if one does already."""
        with self._lock:
            running_check = self._under_way.get(key)
            if running_check is None:
                self._under_way[key] = threading.Event()
            return running_check


def needs_of(job: JobRow) -> tuple[Paths, Paths]:
    """Return what a job's grader asks for in each row, besides what its method does, and what may not be empty."""
    method = methods.load_method(job.method)
    if isinstance(method, ReinforcementMethod):
        grader = method.reinforcement.grader
        return required_fields(grader), reference_fields(grader)
    return (), ()


def _make_bad_file(param: str, message: str, problems: dict[str, Any] | None = None) -> BadFile:
    return BadFile(JobFailureReason(f"invalid_{param}", message, param), problems)
