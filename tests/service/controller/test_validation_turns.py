"""Checks of jobs' files take turns by project, end when nobody needs them, and are not made twice."""

from __future__ import annotations

import gzip
import threading
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from typing import Any

import psutil
import pytest
from sqlalchemy import select

from service.context import Context
from service.controller import validation
from service.controller.validation import Validation, validate_jobs
from service.files import checking
from service.jobs import lifecycle, repository
from service.jobs.datasets import DatasetChecks
from service.queue.memory import MemoryJobQueue
from service.tables.files import FileRow
from service.tables.jobs import JobRow, JobState
from service.tables.keys import ProjectRow
from tests.fixtures.packed import parquet, zstd
from tests.service.controller.conftest import GOOD_ROW, MakeFile, MakeJob

ReadJob = Callable[[str], JobRow]
SLOW_ROW = b'{"messages":[{"role":"user","content":"a"}],"n":1000000000000000000}\n'
"""A good row of a prompt for a grader that takes as long as any."""
GRADED: dict[str, Any] = {
    "type": "reinforcement",
    "reinforcement": {
        "grader": {
            "type": "string_check",
            "name": "right",
            "operation": "eq",
            "input": "{{sample.output_text}}",
            "reference": "{{item.n}}",
        }
    },
}
LARGE = GOOD_ROW * 2000
"""A good file that is checked in a process."""


@pytest.fixture
def make_slow_jobs(context: Context, make_file: MakeFile, make_job: MakeJob) -> Callable[[int], list[str]]:
    """Make jobs of one project with a file each that takes very long to be checked; return their ids."""

    def make(count: int) -> list[str]:
        made: list[str] = []
        for number in range(count):
            data = gzip.compress(SLOW_ROW * 400_000 + b"\n" * number, mtime=0)
            job_id = make_job(make_file(data, packing="gzip"))
            with context.db.write() as session:
                job = repository.by_id(session, job_id)
                assert job is not None
                job.method = GRADED
            made.append(job_id)
        return made

    return make


def move_to(context: Context, job_id: str, project_id: str) -> None:
    """Give a job and its file to another project."""
    with context.db.write() as session:
        if session.scalar(select(ProjectRow).where(ProjectRow.id == project_id)) is None:
            session.add(ProjectRow(id=project_id, name=project_id))
            session.flush()
        job = repository.by_id(session, job_id)
        assert job is not None
        job.project_id = project_id
        for file in session.scalars(select(FileRow).where(FileRow.id.in_([job.training_file, job.validation_file]))):
            file.project_id = project_id


@contextmanager
def at_work(context: Context, **places: int) -> Generator[Validation]:
    """Run the step again and again, as the controller does."""
    object.__setattr__(context.settings, "job_checks", places.get("places", 4))
    step, stop = Validation(context), threading.Event()

    def run() -> None:
        while not stop.is_set():
            step()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield step
    finally:
        stop.set()
        step.close()
        thread.join()
        wait_for(lambda: not step._under_way)


def wait_for(condition: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def check_processes() -> int:
    return sum("check_process" in " ".join(child.cmdline()) for child in psutil.Process().children())


@pytest.fixture
def reads(context: Context, monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Count how often each blob is read."""
    counted: Counter[str] = Counter()
    read = type(context.storage).read

    def count(self: Any, key: str, **options: Any) -> Iterator[bytes]:
        counted[key] += 1
        return read(self, key, **options)

    monkeypatch.setattr(type(context.storage), "read", count)
    return counted


@pytest.mark.slow
@pytest.mark.parametrize("content", [GOOD_ROW, LARGE], ids=["small", "large"])
def test_another_projects_job_is_checked_while_hostile_ones_take_long(
    context: Context,
    make_file: MakeFile,
    make_job: MakeJob,
    make_slow_jobs: Callable[[int], list[str]],
    job_of: ReadJob,
    content: str,
) -> None:
    slow = make_slow_jobs(6)
    with at_work(context) as step:
        wait_for(lambda: len(step._under_way) == 1)
        honest = make_job(make_file(content))
        move_to(context, honest, "proj_other")
        wait_for(lambda: job_of(honest).state == JobState.QUEUED)
        # One place of four is all that the first project gets, and its first check has not ended.
        assert {job_of(job_id).state for job_id in slow} == {JobState.VALIDATING}
        assert check_processes() <= 1


@pytest.mark.slow
def test_a_cancelled_job_loses_its_check_and_one_that_waited_is_never_read(
    context: Context, make_slow_jobs: Callable[[int], list[str]], reads: Counter[str], job_of: ReadJob
) -> None:
    slow = make_slow_jobs(3)
    with at_work(context) as step:
        wait_for(lambda: check_processes() == 1)
        with context.db.write() as session:
            for job_id in slow:
                assert lifecycle.cancel_job(session, job_id)
        wait_for(lambda: not step._under_way)
    assert [job_of(job_id).state for job_id in slow] == [JobState.CANCELLED] * 3
    assert reads == {f"files/{job_of(slow[0]).training_file}": 1}
    assert check_processes() == 0


@pytest.mark.slow
def test_a_controller_that_ends_leaves_its_jobs_as_they_are(
    context: Context, make_slow_jobs: Callable[[int], list[str]], job_of: ReadJob
) -> None:
    (slow,) = make_slow_jobs(1)
    with at_work(context):
        wait_for(lambda: check_processes() == 1)
    assert job_of(slow).state == JobState.VALIDATING
    assert check_processes() == 0


def test_a_file_of_many_jobs_is_checked_once(
    context: Context,
    queue: MemoryJobQueue,
    make_file: MakeFile,
    make_job: MakeJob,
    reads: Counter[str],
    job_of: ReadJob,
) -> None:
    file_id = make_file(LARGE)
    jobs = [make_job(file_id, validation_file=file_id) for _ in range(4)]
    copy = make_job(make_file(LARGE, "同じ.jsonl"))
    validate_jobs(context, queue)
    assert {job_of(job_id).state for job_id in [*jobs, copy]} == {JobState.QUEUED}
    assert reads.total() == 1


def test_an_outcome_is_kept_for_its_project_and_its_row_format_alone(
    context: Context,
    queue: MemoryJobQueue,
    make_file: MakeFile,
    make_job: MakeJob,
    reads: Counter[str],
    job_of: ReadJob,
) -> None:
    first = make_job(make_file(GOOD_ROW))
    foreign = make_job(make_file(GOOD_ROW))
    move_to(context, foreign, "proj_other")
    other_method = make_job(make_file(GOOD_ROW), method="dpo")
    as_text = make_job(make_file(GOOD_ROW, "a.txt"), method="pretraining")
    validate_jobs(context, queue)
    states = [job_of(job_id).state for job_id in (first, foreign, other_method, as_text)]
    assert states == [JobState.QUEUED, JobState.QUEUED, JobState.FAILED, JobState.QUEUED]
    assert reads.total() == 4


def test_a_kept_outcome_names_the_requested_file(
    context: Context, queue: MemoryJobQueue, make_file: MakeFile, make_job: MakeJob, job_of: ReadJob
) -> None:
    jobs = [make_job(make_file("{}\n", name)) for name in ("一.jsonl", "二.jsonl")]
    validate_jobs(context, queue)
    for job_id, name in zip(jobs, ("一.jsonl", "二.jsonl"), strict=True):
        error = job_of(job_id).error
        assert error is not None
        assert error["message"].startswith(f"{name} has 1 problem: line 1: messages: is missing")


def test_kept_outcomes_are_bounded(
    context: Context, make_file: MakeFile, make_job: MakeJob, job_of: ReadJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.jobs.datasets._OUTCOMES_KEPT", 3)
    checks = DatasetChecks(context)
    for number in range(6):
        job = job_of(make_job(make_file(GOOD_ROW * (number + 1))))
        assert checks.check_file(job, "training_file", job.training_file, lambda: True) is None
    assert len(checks._outcomes) == 3
    assert checks._under_way == {}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("data", "packing"),
    [
        (gzip.compress(b"{}\n" * 400_000), "gzip"),
        (zstd.compress("好\n".encode() * 400_000), "zstd"),
        (parquet([{"a": None}] * 400_000), "parquet"),
        (gzip.compress(b'{"messages":[]}\n' * 400_000), "gzip"),
    ],
    ids=["objects", "letters", "rows", "messages"],
)
def test_a_flood_of_bad_rows_ends_its_job_soon(
    context: Context,
    queue: MemoryJobQueue,
    make_file: MakeFile,
    make_job: MakeJob,
    job_of: ReadJob,
    data: bytes,
    packing: str,
) -> None:
    file_id = make_file(data, packing=packing)
    jobs = [make_job(file_id, validation_file=file_id) for _ in range(4)]
    before, children = time.process_time(), psutil.Process().cpu_times()
    validate_jobs(context, queue)
    used = psutil.Process().cpu_times()
    assert time.process_time() - before < 2
    assert used.children_user + used.children_system - children.children_user - children.children_system < 5
    for job_id in jobs:
        error = job_of(job_id).error
        assert error is not None
        assert "; and 980 more; the check stopped at" in error["message"]


def test_places_go_to_the_project_with_the_fewest_then_to_the_longest_without(
    context: Context,
    make_file: MakeFile,
    make_job: MakeJob,
    job_of: ReadJob,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    object.__setattr__(context.settings, "job_checks", 1)
    file_id = make_file()
    jobs = [make_job(file_id) for _ in range(4)]
    for place, project in ((2, "proj_b"), (3, "proj_c")):
        jobs += [make_job(make_file(GOOD_ROW * place)) for _ in range(2)]
        for job_id in jobs[-2:]:
            move_to(context, job_id, project)
    order: list[str] = []
    check = validation._check_job

    def note(checks: DatasetChecks, job: JobRow, needed: checking.Needed) -> object:
        order.append(job.project_id)
        return check(checks, job, needed)

    monkeypatch.setattr(validation, "_check_job", note)
    assert Validation(context).check_all() == 8
    assert order == ["proj_test", "proj_b", "proj_c", "proj_test", "proj_b", "proj_c", "proj_test", "proj_test"]
    assert {job_of(job_id).state for job_id in jobs} == {JobState.QUEUED}
