"""Packed files are checked row by row like others, and what is wrong with a packing is named."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from service.context import Context
from service.controller.validation import validate_jobs
from service.files import content
from service.files.process import reader_environment
from service.queue.memory import MemoryJobQueue
from service.tables.jobs import JobState
from tests.clients.datasets.test_packing import BROKEN
from tests.clients.datasets.test_quick import GOOD_ROWS
from tests.fixtures.packed import PACKINGS, parquet, parquet_bomb
from tests.service.controller.conftest import MakeFile, MakeJob
from tests.service.controller.test_validation import ReadJob

BAD_ROW = {"messages": [{"role": "用户", "content": "你好"}]}


@pytest.mark.slow
@pytest.mark.parametrize("packing", PACKINGS)
def test_good_rows_pass_in_every_packing(
    context: Context,
    queue: MemoryJobQueue,
    make_file: MakeFile,
    make_job: MakeJob,
    job_of: ReadJob,
    packing: str,
) -> None:
    job_id = make_job(make_file(PACKINGS[packing](GOOD_ROWS["dpo"]), packing=packing), method="dpo")
    validate_jobs(context, queue)
    assert (job_of(job_id).state, job_of(job_id).error) == (JobState.QUEUED, None)


@pytest.mark.slow
@pytest.mark.parametrize(("packing", "place"), [("gzip", "line 3"), ("zstd", "line 3"), ("parquet", "row 3")])
def test_a_bad_row_is_named_in_every_packing(
    context: Context,
    queue: MemoryJobQueue,
    make_file: MakeFile,
    make_job: MakeJob,
    job_of: ReadJob,
    packing: str,
    place: str,
) -> None:
    rows = [*GOOD_ROWS["supervised"], BAD_ROW]
    job_id = make_job(make_file(PACKINGS[packing](rows), "训练.jsonl", packing=packing))
    validate_jobs(context, queue)
    error = job_of(job_id).error
    assert error is not None
    assert error["message"].startswith(f"训练.jsonl has 1 problem: {place}: messages[0].role: ")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["a parquet bomb", "parquet with a broken footer", "parquet with NaN"])
def test_bad_parquet_fails_the_job_with_a_sentence(
    context: Context, queue: MemoryJobQueue, make_file: MakeFile, make_job: MakeJob, job_of: ReadJob, name: str
) -> None:
    make, reason = BROKEN[name]
    job_id = make_job(make_file(make(), "a.parquet", packing="parquet"), method="pretraining")
    validate_jobs(context, queue)
    error = job_of(job_id).error
    assert error is not None
    assert error["code"] == "invalid_training_file"
    assert reason in error["message"]


@pytest.mark.slow
def test_a_batch_that_takes_too_much_memory_ends_in_its_reader(
    context: Context, queue: MemoryJobQueue, make_file: MakeFile, make_job: MakeJob, job_of: ReadJob
) -> None:
    job_id = make_job(make_file(parquet_bomb(megabytes=30, rows=60), packing="parquet"), method="pretraining")
    validate_jobs(context, queue)
    error = job_of(job_id).error
    assert error is not None
    assert "memory" in error["message"]


def readers() -> list[int]:
    listed = subprocess.run(["ps", "-o", "pid=,args=", "--ppid", str(os.getpid())], capture_output=True, text=True)
    return [int(line.split()[0]) for line in listed.stdout.splitlines() if "parquet_reader" in line]


@pytest.mark.slow
def test_a_reader_that_breaks_is_a_problem_of_the_file_and_leaves_no_process(context: Context, tmp_path: Path) -> None:
    rows = [{"text": "从前" * 1000} for _ in range(3000)]
    source = tmp_path / "a.parquet"
    source.write_bytes(parquet(rows))
    with source.open("rb") as file:
        lines = content.read_local(file, "parquet", content.limits_of(context.settings))
        next(lines)
        (pid,) = readers()
        os.kill(pid, signal.SIGSEGV)
        with pytest.raises(Exception, match="breaks its reader"):
            for _ in lines:
                pass
        assert readers() == []
        left: Any = content.read_local(file, "parquet", content.limits_of(context.settings))
        next(left)
        left.close()
        assert readers() == []


def test_the_reader_sees_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BURNISH_SECRET_KEY", "s" * 40)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s" * 40)
    assert not any("s" * 40 in value for value in reader_environment().values())
