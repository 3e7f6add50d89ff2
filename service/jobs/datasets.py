"""Whether a job can train on its files: each row is checked against the row format of the job's method."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from burnish.datasets import ROW_FORMATS, DatasetSummary, ItemRows, RowFormat, check_file, describe
from service.context import Context
from service.files import repository as files
from service.files.content import packing_of_row, read_blob
from service.files.tables import File
from service.jobs import methods
from service.jobs.lifecycle import JobError
from service.jobs.tables import Job
from service.storage.errors import BlobNotFound
from trainer.contract.methods.reinforcement import ReinforcementMethod
from trainer.graders import needs


@dataclass(frozen=True)
class BadFile:
    """A dataset that no job can train on."""

    error: JobError
    problems: dict[str, Any] | None = None
    """What the event shows: the file and its problems, line by line."""


def check_dataset(context: Context, job: Job, param: str, file_id: str) -> BadFile | None:
    """Check the rows of one of a job's files. Raises Unavailable, StorageUnavailable."""
    role = param.replace("_", " ")
    with context.db.read() as session:
        file = files.get(session, job.project_id, file_id)
    if file is None:
        return _bad(param, f"The {role} {file_id} was deleted before it could be checked: upload it again.")
    try:
        summary = _check_rows(context, file, row_format_of(job))
    except BlobNotFound:
        return _bad(param, f"The bytes of the {role} {file.filename} ({file.id}) are gone: upload it again.")
    if summary.ok:
        return None
    problems = {
        "file": file.id,
        "filename": file.filename,
        "param": param,
        "problems": [{"line": problem.line, "reason": problem.reason} for problem in summary.problems],
        "more_problems": summary.more_problems,
    }
    return _bad(param, describe(file.filename, summary), problems)


def row_format_of(job: Job) -> RowFormat:
    """Return the format of a job's rows: its method's, with the fields that its grader asks for."""
    method = methods.stored(job.method)
    if isinstance(method, ReinforcementMethod):
        return ItemRows(needs(method.reinforcement.grader))
    return ROW_FORMATS[method.type]


def _check_rows(context: Context, file: File, row_format: RowFormat) -> DatasetSummary:
    return check_file(
        file.filename,
        read_blob(context, file),
        row_format,
        packing=packing_of_row(file),
        max_line_bytes=context.settings.max_line_bytes,
    )


def _bad(param: str, message: str, problems: dict[str, Any] | None = None) -> BadFile:
    return BadFile(JobError(f"invalid_{param}", message, param), problems)
